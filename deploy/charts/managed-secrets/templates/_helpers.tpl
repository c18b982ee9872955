{{/* The operator's image: by digest if there is one, else by tag. */}}
{{- define "managed-secrets.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Labels of every object. No selector contains them, so that they can change. */}}
{{- define "managed-secrets.labels" -}}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | quote }}
{{- end -}}

{{/* The namespace of the ManagedSecret that `helm test` asks to create: one that the operator watches. */}}
{{- define "managed-secrets.checkNamespace" -}}
{{ first .Values.namespaces | default "default" }}
{{- end -}}
