{{/* A client's settings file for one cell of one model. */}}
{{- define "secformer-gateway.toml" -}}
party0 = {{ toJson .cell.party0 }}
party1 = {{ toJson .cell.party1 }}
model = "/var/lib/secformer/{{ .id }}/{{ .cell.folder | default "model" }}"
{{- include "secformer.settings" .Values.settings }}

{{ include "secformer.tls" (dict "folder" (printf "/etc/secformer/cells/%s" .id) "name" (.cell.certificate | default "client")) }}
{{- end }}
