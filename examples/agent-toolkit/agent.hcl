# Vault's address is taken from VAULT_ADDR. Paths are relative to where Agent is started: ~/.apiconnect.

auto_auth {
  # Good for trying it. Where it stays, use the method of your platform: approle, aws, azure, kubernetes, ...
  method "token_file" {
    config = {
      token_file_path = "vault-token"
    }
  }
}

template {
  destination = "token"
  perms       = "0600"
  # The toolkit wants one text for each server, hence the bar, and in it no scheme before the host. To be logged in to
  # several servers, repeat this from "with" to "end" for each.
  contents = <<EOT
{{ with secret "apic/token/us-south" -}}
{{ .Data.api_url | regexReplaceAll "^https?://([^/]+).*$" "$1" }}/api: |
  refresh_token: ""
  access_token: {{ .Data.token }}
{{ end -}}
EOT
}
