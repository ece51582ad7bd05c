{{/*
What runs, the one table that every template goes through:
  module    the folder under services/ and what it is told to do
  image     which of the two images
  address   the setting that holds the service's own address: where it listens, and where callers find it
  port      the port that it answers on; a worker has none
  calls     the services it calls: each is an address in its environment and an edge of the network
  reaches   what it uses outside of the chart: each is settings in its environment and an edge of the network
  data      whether it mounts /data: always, or (lake) only when the warehouse's files are there
*/}}
{{- define "traitmesh.services" -}}
gateway:
  module: gateway
  command: serve
  image: services
  address: gateway_address
  port: 7400
  protocol: http
  calls: [trait-registry, model-builder, audience, sync-worker]
  reaches: [database]
trait-registry:
  module: trait_registry
  command: serve
  image: services
  address: registry_address
  port: 7401
  protocol: grpc
  calls: []
  reaches: [database]
model-builder:
  module: model_builder
  command: serve
  image: workers
  address: model_address
  port: 7402
  protocol: grpc
  calls: [trait-registry, audience]
  reaches: [database, warehouse, temporal]
  data: always
model-builder-worker:
  module: model_builder
  command: worker
  image: workers
  calls: [trait-registry, audience]
  reaches: [database, warehouse, temporal]
  data: always
audience:
  module: audience
  command: serve
  image: services
  address: audience_address
  port: 7403
  protocol: grpc
  calls: [trait-registry, model-builder]
  reaches: [database, warehouse]
  data: lake
sync-worker:
  module: sync_worker
  command: serve
  image: workers
  address: sync_address
  port: 7404
  protocol: grpc
  calls: [trait-registry, model-builder]
  reaches: [database, warehouse, temporal, destinations]
  data: always
sync-worker-worker:
  module: sync_worker
  command: worker
  image: workers
  calls: [trait-registry, model-builder]
  reaches: [database, warehouse, temporal, destinations]
  data: always
{{- end }}
