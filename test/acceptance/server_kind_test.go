// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"fmt"
	"maps"
	"os"
	"strings"
	"syscall"

	"github.com/hashicorp/vault/api"
)

// serverVersion is what the server says of itself, such as "Vault v1.21.0" or "OpenBao v2.5.5".
var serverVersion string

func isOpenBao() bool { return strings.HasPrefix(serverVersion, "OpenBao") }

// enableAudit has the server write audit.log into the stack's directory. OpenBao takes its audit
// devices from its configuration alone.
func (s *stack) enableAudit() {
	s.Helper()
	if !isOpenBao() {
		s.check(s.client.Sys().EnableAuditWithOptions("file", &api.EnableAuditOptions{
			Type: "file", Options: map[string]string{"file_path": s.path("audit.log")},
		}))
		return
	}
	config := fmt.Sprintf(`%s
audit "file" "file" {
  options {
    file_path = %q
  }
}
`, s.fileContent("vault.hcl"), s.path("audit.log"))
	s.check(os.WriteFile(s.path("vault.hcl"), []byte(config), 0o600))
	s.check(s.vault.Process.Signal(syscall.SIGHUP))
	s.eventually("the server has an audit device", func() bool {
		devices, err := s.client.Sys().ListAudit()
		return err == nil && len(devices) == 1
	})
}

// setUpAudit follows docs/audit.md, whose first command enables the audit device.
func (s *stack) setUpAudit() {
	s.Helper()
	const heading = "## Set it up"
	if !isOpenBao() {
		s.runDocumented("audit.md", heading, "AUDIT_LOG="+s.path("audit.log"))
		return
	}
	s.enableAudit()
	_, rest, _ := strings.Cut(shell(section(s.T, "audit.md", heading)), "\n")
	_, err := s.bash(rest)
	s.check(err)
}

// withoutPatch drops the operations that OpenBao's document leaves out, from what the page says.
func withoutPatch(documented map[apiKey]apiRow) {
	maps.DeleteFunc(documented, func(_ apiKey, row apiRow) bool { return row.kind == "patch" })
}
