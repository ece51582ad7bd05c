{{/*
Takes (dict "root" $ "service" row of the table). The probes of a server. None of them asks what the process depends on but
/readyz; a live process that is busy is left alone for two minutes, since its health is asked on the threads that work.
*/}}
{{- define "traitmesh.probes" -}}
{{- $ready := include "traitmesh.health" (dict "root" .root "service" .service "path" "/readyz") }}
{{- $alive := include "traitmesh.health" (dict "root" .root "service" .service "path" "/healthz") }}
# Before it listens, a server migrates its schema or waits for another pod that does.
startupProbe:
  {{- $alive | nindent 2 }}
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: 150
readinessProbe:
  {{- $ready | nindent 2 }}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 3
livenessProbe:
  {{- $alive | nindent 2 }}
  periodSeconds: 20
  timeoutSeconds: 10
  failureThreshold: 6
{{- end }}

{{- define "traitmesh.health" -}}
{{- if eq .service.protocol "http" -}}
httpGet: {path: {{ .path }}, port: http}
{{- else if .root.Values.secrets.tls.name -}}
# Kubernetes' gRPC probe speaks no TLS.
tcpSocket: {port: grpc}
{{- else -}}
grpc: {port: {{ .service.port }}}
{{- end -}}
{{- end }}
