{{/* What the names of the release's resources begin with; short enough for the longest name of a process. */}}
{{- define "traitmesh.fullname" -}}
{{- $own := ternary .Release.Name (printf "%s-traitmesh" .Release.Name) (contains "traitmesh" .Release.Name) -}}
{{- .Values.fullnameOverride | default $own | trunc 42 | trimSuffix "-" -}}
{{- end }}

{{/* Takes (dict "root" $ "name" process). What pods are selected by: it must never change. */}}
{{- define "traitmesh.selector" -}}
app.kubernetes.io/name: traitmesh
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .name }}
{{- end }}

{{/* Takes (dict "root" $ "name" process). */}}
{{- define "traitmesh.labels" -}}
{{ include "traitmesh.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{/* Takes (dict "root" $ "service" row of the table). */}}
{{- define "traitmesh.image" -}}
{{- $values := .root.Values.image -}}
{{- $image := index $values .service.image -}}
{{- $repository := list $values.registry $image.repository | compact | join "/" -}}
{{- if $image.digest -}}
{{ $repository }}@{{ $image.digest }}
{{- else -}}
{{ $repository }}:{{ $image.tag | default .root.Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- define "traitmesh.claim" -}}
{{ .Values.data.existingClaim | default (printf "%s-data" (include "traitmesh.fullname" .)) }}
{{- end }}

{{/* Takes (dict "root" $ "service" row of the table). Not empty if the process mounts /data. */}}
{{- define "traitmesh.mountsData" -}}
{{- if or (eq (.service.data | default "") "always") (and (eq (.service.data | default "") "lake") .root.Values.data.lake) }}yes{{ end -}}
{{- end }}
