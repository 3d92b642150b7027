{{/* The dealer's settings file for one cell. */}}
{{- define "secformer-dealer.toml" -}}
listen = "{{ .Values.listen }}:8440"
metrics = "{{ .Values.listen }}:9440"
state = "/var/lib/secformer/state/{{ .cell.name }}"
audit_folder = "/var/lib/secformer/audit/{{ .cell.name }}"
{{- include "secformer.settings" .Values.settings }}

{{ include "secformer.tls" (dict "folder" "/etc/secformer/tls" "name" "dealer") }}
{{- end }}
