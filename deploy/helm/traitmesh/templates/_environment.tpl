{{/* Takes (dict "root" $ "name" process "service" row of the table). The settings of a process, as env of its container. */}}
{{- define "traitmesh.environment" -}}
{{- $values := .root.Values }}
{{- $secrets := $values.secrets }}
{{- $own := index $values.services .name }}
{{- include "traitmesh.secret" (list "database_url" $secrets.databaseUrl) }}
{{- include "traitmesh.secret" (list "signing_key" $secrets.signingKey) }}
{{- include "traitmesh.setting" (list "log_level" $values.logLevel) }}
{{- include "traitmesh.setting" (list "drain_seconds" $own.drainSeconds) }}
{{- include "traitmesh.setting" (list "traces" $values.traces.exporter) }}
{{- if eq $values.traces.exporter "otlp" }}
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ $values.traces.endpoint | quote }}}
{{- end }}
{{- if $secrets.tls.name }}
{{- include "traitmesh.setting" (list "tls_certificate" "/etc/traitmesh/tls/certificate.pem") }}
{{- include "traitmesh.setting" (list "tls_key" "/etc/traitmesh/tls/key.pem") }}
{{- include "traitmesh.setting" (list "tls_authority" "/etc/traitmesh/tls/authority.pem") }}
{{- end }}
{{- include "traitmesh.addresses" . }}
{{- if has "warehouse" .service.reaches }}
{{- include "traitmesh.secret" (list "warehouse_url" $secrets.warehouseUrl) }}
{{- end }}
{{- if has "temporal" .service.reaches }}
{{- include "traitmesh.setting" (list "temporal_address" $values.temporal.address) }}
{{- include "traitmesh.setting" (list "temporal_namespace" $values.temporal.namespace) }}
{{- include "traitmesh.setting" (list "temporal_ui_url" $values.temporal.uiUrl) }}
{{- if $secrets.temporalApiKey.name }}
{{- include "traitmesh.secret" (list "temporal_api_key" $secrets.temporalApiKey) }}
{{- end }}
{{- end }}
{{- if eq (.service.data | default "") "always" }}
{{- include "traitmesh.setting" (list "data_dir" "/data/files") }}
{{- end }}
{{- range $setting, $value := $own.settings }}
{{- include "traitmesh.setting" (list $setting $value) }}
{{- end }}
{{- end }}

{{/* Where the process listens, and where it finds those that it calls: all pods of each, by its headless Service. */}}
{{- define "traitmesh.addresses" -}}
{{- $services := include "traitmesh.services" .root | fromYaml }}
{{- if .service.port }}
{{- include "traitmesh.setting" (list .service.address (printf "%s:%v" .root.Values.listenHost .service.port)) }}
{{- end }}
{{- range .service.calls }}
{{- $called := index $services . }}
{{- $address := printf "dns:///%s-%s:%v" (include "traitmesh.fullname" $.root) . $called.port }}
{{- include "traitmesh.setting" (list $called.address $address) }}
{{- end }}
{{- end }}

{{/* Takes (list setting value). Helm reads every number as a float, and would write a large one as 1e+09. */}}
{{- define "traitmesh.setting" }}
{{- $value := index . 1 }}
{{- if and (kindIs "float64" $value) (eq (floor $value) $value) }}
{{- $value = int64 $value }}
{{- end }}
- {name: TRAITMESH_{{ index . 0 | upper }}, value: {{ $value | toString | quote }}}
{{- end }}

{{/* Takes (list setting reference), a reference being the name of a Secret and a key in it. */}}
{{- define "traitmesh.secret" }}
- name: TRAITMESH_{{ index . 0 | upper }}
  valueFrom: {secretKeyRef: {name: {{ (index . 1).name | quote }}, key: {{ (index . 1).key | quote }}}}
{{- end }}
