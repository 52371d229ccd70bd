# Vault's address is taken from VAULT_ADDR. Paths are relative to where Agent is started.

auto_auth {
  # Good for trying it. Where it stays, use the method of your platform: approle, aws, azure, kubernetes, ...
  method "token_file" {
    config = {
      token_file_path = "vault-token"
    }
  }
}

template {
  destination = "apic.env"
  # Without this, every user of the machine could read it.
  perms = "0600"
  # No quotes: docker would take them for a part of the value.
  contents = <<EOT
{{ with secret "apic/token/us-south" -}}
APIC_API_URL={{ .Data.api_url }}
APIC_TOKEN={{ .Data.token }}
{{ end -}}
EOT
  # For a program that reads the file only when it starts:
  # exec { command = ["systemctl", "try-restart", "my-program.service"] }
}
