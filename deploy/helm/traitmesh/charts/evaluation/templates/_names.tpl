{{/* One name for all of it, since evaluation-values.yaml says where to find it: one evaluation in a namespace. */}}
{{- define "evaluation.name" -}}
traitmesh-evaluation
{{- end }}

{{- define "evaluation.selector" -}}
app.kubernetes.io/name: {{ include "evaluation.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "evaluation.metadata" -}}
name: {{ include "evaluation.name" . }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "evaluation.selector" . | nindent 2 }}
  app.kubernetes.io/managed-by: {{ .Release.Service }}
  helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* Takes (dict "root" $ "program" postgres or temporal). What both containers have in common. */}}
{{- define "evaluation.container" -}}
image: {{ .program.image | quote }}
imagePullPolicy: {{ .root.Values.imagePullPolicy }}
resources:
  {{- toYaml .program.resources | nindent 2 }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}
