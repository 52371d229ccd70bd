# Vault's address is taken from VAULT_ADDR. Paths are relative to where consul-template is started.

vault {
  # The file is read again when it changes; whoever writes it renews the Vault token.
  vault_agent_token_file = "vault-token"
  renew_token            = false
}

template {
  destination = "apic.env"
  perms       = 0600
  contents    = <<-EOT
    {{- with secret "apic/token/us-south" -}}
    APIC_API_URL={{ .Data.api_url }}
    APIC_TOKEN={{ .Data.token }}
    {{ end -}}
    EOT
}
