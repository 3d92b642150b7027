{{/* What a party's rank decides: names and ports as `secformer init` writes them. */}}
{{- define "secformer-party.role" -}}party{{ .Values.rank }}{{- end }}
{{- define "secformer-party.clients" -}}{{ add 8442 .Values.rank }}{{- end }}
{{- define "secformer-party.browsers" -}}{{ add 8444 .Values.rank }}{{- end }}
{{- define "secformer-party.metrics" -}}{{ add 9442 .Values.rank }}{{- end }}

{{/* A party's settings file for one cell. */}}
{{- define "secformer-party.toml" -}}
rank = {{ .Values.rank }}
model = "/var/lib/secformer/model/{{ .cell.modelFile | default "model.safetensors" }}"
state = "/var/lib/secformer/state/{{ .cell.name }}"
{{- if eq (int .Values.rank) 1 }}
store = "/var/lib/secformer/store/{{ .cell.name }}"
{{- end }}
audit_folder = "/var/lib/secformer/audit/{{ .cell.name }}"
clients = "{{ .Values.listen }}:{{ include "secformer-party.clients" . }}"
link = {{ if eq (int .Values.rank) 0 }}"{{ .Values.listen }}:8441"{{ else }}{{ toJson .cell.link }}{{ end }}
dealer = {{ toJson .cell.dealer }}
metrics = "{{ .Values.listen }}:{{ include "secformer-party.metrics" . }}"
{{- include "secformer.settings" .Values.settings }}

{{ include "secformer.tls" (dict "folder" "/etc/secformer/tls" "name" (include "secformer-party.role" .)) }}
{{- with .Values.budgets }}

[budgets]
{{- include "secformer.settings" (omit . "clients") }}
{{- range $client, $budget := .clients }}

[budgets.clients.{{ $client }}]
{{- include "secformer.settings" $budget }}
{{- end }}
{{- end }}
{{- with .Values.browsers }}

[browsers]
address = "{{ $.Values.listen }}:{{ include "secformer-party.browsers" $ }}"
origins = {{ toJson .origins }}
{{- with .tokenSeconds }}
token_seconds = {{ toJson . }}
{{- end }}
{{- if .secret }}
certificate = "/etc/secformer/web/web.pem"
key = "/etc/secformer/web/web.key"
{{- end }}
{{- end }}
{{- end }}
