"""The audience service's gRPC methods: a rule is read, compiled or stored, and rows become messages."""

from collections.abc import Collection, Set
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from sqlalchemy import Connection, Engine
from traitmesh_proto.audience.v1 import analytics_pb2, analytics_pb2_grpc, audience_pb2, audience_pb2_grpc, segment_pb2
from traitmesh_proto.registry.v1 import trait_pb2, trait_pb2_grpc

from libs.kit import errors, names, paging
from libs.kit.messages import moment, timestamp
from libs.kit.requests import mutate
from services.audience import domain, rules, store
from services.audience.compiler import answers, guard, segments
from services.audience.compiler.target import Target
from services.audience.definitions import Definitions
from services.audience.domain import TraitType
from services.audience.serving import EVENTS, Models, faults

AUDIENCE = "workspaces/{workspace}/audiences/{audience}"
MODEL_REVISION = "workspaces/{workspace}/modelRevisions/{model_revision}"


class AudienceServicer(audience_pb2_grpc.AudienceServiceServicer):
    """Audiences, in PostgreSQL; their sizes, in the warehouse; their traits, in the registry."""

    def __init__(self, engine: Engine, models: Models, traits: trait_pb2_grpc.TraitServiceStub) -> None:
        self._engine = engine
        self._models = models
        self._traits = traits

    def CreateAudience(
        self, request: audience_pb2.CreateAudienceRequest, context: grpc.ServicerContext
    ) -> audience_pb2.Audience:
        (workspace,) = names.parse(names.WORKSPACE, request.parent, "parent")
        audience = names.check_id(request.audience_id, "audience_id", names.COLUMN_ID)
        return mutate(
            self._engine,
            store.requests,
            workspace,
            request,
            audience_pb2.Audience,
            lambda tx: self._create(tx, workspace, audience, request),
        )

    def _create(
        self, tx: Connection, workspace: str, audience: str, request: audience_pb2.CreateAudienceRequest
    ) -> audience_pb2.Audience:
        asked = request.audience
        store.lock_audiences(tx, workspace)
        display_name = rules.text(asked.display_name, "audience.display_name") or audience
        description = rules.text(asked.description, "audience.description")
        rules.read_rule(asked.rule, "audience.rule", self._models.declared(workspace))
        stored = rules.stored_form(asked.rule)
        if not store.insert_audience(tx, workspace, audience, display_name, description, stored):
            raise errors.AlreadyExists(f"{request.parent}/audiences/{audience}")
        try:
            Definitions(store.all_rules(tx, workspace)).order()
        except (domain.CircularAudiencesError, domain.NestedAudiencesError) as error:
            raise errors.invalid("audience.rule", str(error)) from error
        # The registry comes last: if this transaction fails after it, a repeat finds the trait as it should be.
        revision = self._declare(request, audience, display_name)
        return _audience_message(store.set_model_revision(tx, workspace, audience, revision))

    def _declare(self, request: audience_pb2.CreateAudienceRequest, audience: str, display_name: str) -> str:
        """Makes the audience a trait of the model, and returns the model revision that holds it."""
        trait = trait_pb2.Trait(
            name=f"{request.parent}/traits/{audience}",
            display_name=display_name,
            description=request.audience.description,
            kind=trait_pb2.TRAIT_KIND_DECIDED,
            type=trait_pb2.TRAIT_TYPE_BOOLEAN,
        )
        declaration = trait_pb2.ApplyTraitsRequest(
            parent=request.parent,
            origin=f"{request.parent}/audiences/{audience}",
            traits=[trait],
            validate_only=request.validate_only,
        )
        try:
            return self._traits.ApplyTraits(declaration).model_revision.name
        except grpc.RpcError as error:
            fault = errors.from_rpc(error)
            if fault.code is grpc.StatusCode.INVALID_ARGUMENT:
                # Nothing but the id can be wrong with this declaration.
                raise errors.invalid("audience_id", fault.message.partition(": ")[2]) from error
            raise fault from error

    def GetAudience(
        self, request: audience_pb2.GetAudienceRequest, context: grpc.ServicerContext
    ) -> audience_pb2.Audience:
        workspace, audience = names.parse(AUDIENCE, request.name)
        with self._engine.begin() as tx:
            return _audience_message(errors.found(store.find_audience(tx, workspace, audience), request.name))

    def ListAudiences(
        self, request: audience_pb2.ListAudiencesRequest, context: grpc.ServicerContext
    ) -> audience_pb2.ListAudiencesResponse:
        (workspace,) = names.parse(names.WORKSPACE, request.parent, "parent")
        page = paging.page(request, f"{request.parent}/audiences")
        with self._engine.begin() as tx:
            rows, token = store.list_audiences(tx, workspace, page)
        return audience_pb2.ListAudiencesResponse(audiences=map(_audience_message, rows), next_page_token=token)

    def EstimateAudience(
        self, request: audience_pb2.EstimateAudienceRequest, context: grpc.ServicerContext
    ) -> audience_pb2.EstimateAudienceResponse:
        (workspace,) = names.parse(names.WORKSPACE, request.parent, "parent")
        definitions = self._definitions(workspace)
        asked, path = _asked_rule(request, definitions)
        model = self._models.serving(workspace)
        named = rules.named_traits(asked)
        # Audiences that the build does not hold yet are decided here, each a column more of the table of users.
        unbuilt = definitions.needed_beside(model.traits, named | {request.breakdown_trait})
        columns = {*model.traits, *unbuilt}
        known = self._models.declared(workspace) | model.traits | dict.fromkeys(unbuilt, TraitType.BOOLEAN)
        rule = rules.read_rule(asked, path, known)
        breakdown = _breakdown(request.breakdown_trait, known, columns)
        _require_columns(named.union(*(definitions.references[audience] for audience in unbuilt)), columns)
        target = model.target
        for audience in unbuilt:
            verdicts = segments.judged(definitions.rule(audience, known), audience, target)
            target = target.on_users(verdicts.subquery())
        rows = model.ask(guard.sql(answers.estimate(rule, breakdown, target), model.target))
        everybody = next(row for row in rows if row["place"] is None)
        return audience_pb2.EstimateAudienceResponse(
            size=everybody["size"],
            total=everybody["total"],
            breakdown=[audience_pb2.Bucket(value=label, size=row["size"]) for label, row in _buckets(rows, breakdown)],
            build=model.build,
            as_of=timestamp(model.as_of),
        )

    def CompileAudiences(
        self, request: audience_pb2.CompileAudiencesRequest, context: grpc.ServicerContext
    ) -> audience_pb2.CompileAudiencesResponse:
        (workspace,) = names.parse(names.WORKSPACE, request.parent, "parent")
        if not request.HasField("as_of"):
            raise errors.invalid("as_of", "must be given")
        warehouse = self._models.warehouse(workspace)
        with faults():
            users, events = warehouse.table(request.users_table), warehouse.table(EVENTS)
        target = Target.of(warehouse.dialect, users, events, moment(request.as_of))
        definitions = self._definitions(workspace)
        for audience in request.audiences:
            if audience not in definitions:
                raise errors.NotFound(f"{request.parent}/audiences/{audience}")
        known = self._known(workspace, request.model_revision) | dict.fromkeys(request.audiences, TraitType.BOOLEAN)
        columns = {*request.traits, *request.audiences}
        compiled = []
        for audience in definitions.order():
            if audience in request.audiences:
                rule = definitions.rule(audience, known)
                _require_columns(definitions.references[audience], columns)
                sql = guard.sql(segments.members(rule, target), target)
                read = segments.columns_read(rule, request.users_table, EVENTS)
                compiled.append(audience_pb2.CompiledAudience(audience=audience, sql=sql, columns=read))
        return audience_pb2.CompileAudiencesResponse(audiences=compiled)

    def _known(self, workspace: str, model_revision: str) -> dict[str, TraitType]:
        """The traits of a model revision, of the latest if none is named."""
        if not model_revision:
            return self._models.declared(workspace)
        if names.parse(MODEL_REVISION, model_revision, "model_revision")[0] != workspace:
            raise errors.NotFound(model_revision)
        return self._models.revision(model_revision)

    def _definitions(self, workspace: str) -> Definitions:
        with self._engine.begin() as tx:
            return Definitions(store.all_rules(tx, workspace))


class AnalyticsServicer(analytics_pb2_grpc.AnalyticsServiceServicer):
    """Questions about events, answered by the warehouse over the users of the build that serves."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def QueryFunnel(
        self, request: analytics_pb2.QueryFunnelRequest, context: grpc.ServicerContext
    ) -> analytics_pb2.QueryFunnelResponse:
        (workspace,) = names.parse(names.WORKSPACE, request.parent, "parent")
        funnel = rules.read_funnel(request.funnel, "funnel")
        model = self._models.serving(workspace)
        known = self._models.declared(workspace) | model.traits
        breakdown = _breakdown(request.breakdown_trait, known, model.traits)
        rows = model.ask(guard.sql(answers.funnel(funnel, breakdown, model.target), model.target))
        everybody = next(row for row in rows if row["place"] is None)
        return analytics_pb2.QueryFunnelResponse(
            steps=_funnel_steps(funnel, everybody),
            breakdown=[
                analytics_pb2.FunnelBucket(value=label, steps=_funnel_steps(funnel, row))
                for label, row in _buckets(rows, breakdown)
            ],
            build=model.build,
            as_of=timestamp(model.as_of),
        )


def _asked_rule(
    request: audience_pb2.EstimateAudienceRequest, definitions: Definitions
) -> tuple[segment_pb2.Rule, str]:
    """The rule to estimate, and the path of the field that gives it."""
    if request.HasField("rule") == bool(request.audience):
        raise errors.invalid("rule", "give either a rule or an audience")
    if request.HasField("rule"):
        return request.rule, "rule"
    workspace, audience = names.parse(AUDIENCE, request.audience, "audience")
    if f"workspaces/{workspace}" != request.parent or audience not in definitions:
        raise errors.NotFound(request.audience)
    return definitions.message(audience), "audience"


def _breakdown(trait: str, known: rules.Traits, columns: Collection[str]) -> answers.Breakdown:
    if not trait:
        return None
    kind = rules.check_trait(trait, "breakdown_trait", known)
    _require_columns({trait}, columns)
    return trait, kind


def _require_columns(named: Set[str], columns: Collection[str]) -> None:
    missing = sorted(named - set(columns))
    if missing:
        raise errors.NotReady(f"the model does not hold {', '.join(missing)} yet; run `traitmesh build run`")


def _buckets(rows: list[dict[str, Any]], breakdown: answers.Breakdown) -> list[tuple[str, dict[str, Any]]]:
    """The rows of a breakdown with their labels: values by frequency, then others, then those without."""
    if breakdown is None:
        return []
    placed = [row for row in rows if row["place"] is not None]
    placed.sort(key=lambda row: (row["place"] == answers.NO_VALUE_PLACE, row["place"]))
    return [(_label(row), row) for row in placed]


def _label(row: dict[str, Any]) -> str:
    if row["place"] == answers.NO_VALUE_PLACE:
        return "(none)"
    if row["place"] == answers.OTHER_PLACE:
        return "(other)"
    value = row["value"]
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _funnel_steps(funnel: domain.Funnel, row: dict[str, Any]) -> list[analytics_pb2.FunnelStepResult]:
    reached = [row[f"r{step}"] for step in range(1, len(funnel.steps) + 1)]
    results = []
    for index, (pattern, count) in enumerate(zip(funnel.steps, reached, strict=True)):
        before = reached[index - 1] if index else count
        beyond = reached[index + 1] if index + 1 < len(reached) else 0
        results.append(
            analytics_pb2.FunnelStepResult(
                event=pattern.event,
                reached=count,
                stopped=count - beyond,
                conversion=(count / before if before else 0.0) if index else 1.0,
                median_time=_duration(row[f"m{index + 1}"]) if index else None,
            )
        )
    return results


def _duration(micros: float | None) -> Duration | None:
    """Microseconds, halves among them, as a message."""
    if micros is None:
        return None
    seconds, nanos = divmod(round(micros * 1000), 1_000_000_000)
    return Duration(seconds=seconds, nanos=nanos)


def _audience_message(row: store.AudienceRow) -> audience_pb2.Audience:
    return audience_pb2.Audience(
        name=f"workspaces/{row.workspace}/audiences/{row.audience}",
        display_name=row.display_name,
        description=row.description,
        rule=rules.from_stored(row.rule),
        model_revision=row.model_revision,
        create_time=timestamp(row.create_time),
    )
