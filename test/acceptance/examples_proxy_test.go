// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
)

func TestExampleProxyLogsInForAProgram(t *testing.T) {
	t.Parallel()
	needs(t, "curl", "curl", "--version")
	e := newExample(t, "proxy", 4)
	// Another port than the example's, which may be taken here.
	address := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	config, err := os.ReadFile(e.dir + "/proxy.hcl")
	e.check(err)
	changed := strings.Replace(string(config), "127.0.0.1:8100", address, 1)
	e.check(os.WriteFile(e.dir+"/proxy.hcl", []byte(changed), 0o600))
	for _, block := range []int{2, 3} {
		e.blocks[block] = strings.Replace(e.blocks[block], "127.0.0.1:8100", address, 1)
	}
	e.mustRun(0)
	proxy := e.start(1)
	var answer string
	proxy.waitUntil("it answers a token", func() bool {
		answer, err = e.run(2)
		return err == nil
	})
	var read struct{ Data struct{ Token string } }
	e.check(json.Unmarshal([]byte(answer), &read))
	if got := e.callMe(read.Data.Token); got != http.StatusOK {
		e.Errorf("the API manager answered %d to the token", got)
	}
	if said := e.mustRun(3); !strings.Contains(said, e.currentTokenID()) {
		e.Errorf("the API manager was not called with the present token, but answered %s", e.scrub(said))
	}
	proxy.stop()
	e.requireDiscreet(proxy.said.String())
}
