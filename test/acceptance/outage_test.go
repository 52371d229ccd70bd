// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

// TestOutage_longerThanRefreshBefore lets several clients read through an outage that
// begins with a new token and ends shortly before that token does.
func TestOutage_longerThanRefreshBefore(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.sim.SetTokenTTL(24 * time.Second)
	s.writeConfig("us-south", map[string]any{"refresh_before": "12s"})
	first := s.readToken("us-south")
	due, expires := s.dueAt(first), s.sim.Issued()[0].ExpiresAt
	s.check(s.service.Refuse())
	outage := time.Now()

	stop := s.crowd(4, 4*time.Millisecond, "us-south")
	s.eventually("the token is about to end", func() bool { return time.Until(expires) < 4*time.Second })
	readings := stop()
	if lasted := time.Since(outage); lasted < 13*time.Second {
		t.Fatalf("the outage lasted %s only", lasted)
	}

	requireAllAnswered(t, readings)
	if len(readings) < 2000 {
		t.Errorf("there were %d reads", len(readings))
	}
	if longest := slowest(readings); longest > 3*time.Second {
		t.Errorf("a read took %s though there was a token to answer", longest)
	}
	warned := s.requireWarnings(readings, first.Data["token_id"].(string), due)
	t.Logf("%d reads without a failure, %d of them with a warning, the slowest took %s", len(readings), warned, slowest(readings).Round(time.Millisecond))

	s.check(s.service.Accept())
	back := time.Now()
	stop = s.crowd(4, 4*time.Millisecond, "us-south")
	s.eventually("the service's return is noticed", func() bool {
		fresh := readOnce(s.client, "us-south")
		return fresh.err == nil && len(fresh.secret.Warnings) == 0 && fresh.tokenID() != first.Data["token_id"]
	})
	recovery := time.Since(back)
	readings = stop()
	t.Logf("a new token %s after the service was back; %d of %d reads failed until then",
		recovery.Round(100*time.Millisecond), len(failed(readings)), len(readings))
}

// requireWarnings checks that the old token was answered as it should be before
// it was due and after, and returns how many answers warned.
func (s *stack) requireWarnings(readings []reading, id string, due time.Time) (warned int) {
	s.Helper()
	for _, r := range readings {
		if r.tokenID() != id {
			s.Fatal("there was another token while the service was down")
		}
		warnings := strings.Join(r.secret.Warnings, " ")
		if warnings != "" {
			warned++
		}
		if r.began.After(due) && !strings.Contains(warnings, "due for replacement, but the exchange for a newer one failed") {
			s.Fatalf("%s past due the answer warns of %q", r.began.Sub(due), warnings)
		}
		if r.began.Add(r.took).Before(due.Add(-2*time.Second)) && warnings != "" {
			s.Fatalf("before the token is due the answer warns of %q", warnings)
		}
	}
	if warned == 0 {
		s.Fatal("no read was past due")
	}
	return warned
}

// A reader of a token that is due does not wait long for a service that hangs.
func TestOutage_hangingServiceDelaysNoReaderForLong(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.sim.SetTokenTTL(14 * time.Second)
	s.writeConfig("us-south", map[string]any{"refresh_before": "7s"})
	first := s.readToken("us-south")
	due := s.dueAt(first)
	s.sim.Inject(apicsim.Fault{Kind: apicsim.KindHang})
	s.eventually("the token is due", func() bool { return time.Now().After(due) })

	late := readOnce(s.client, "us-south")
	s.check(late.err)
	if late.took > 5*time.Second {
		t.Errorf("the reader waited %s", late.took)
	}
	if late.tokenID() != first.Data["token_id"] || len(late.secret.Warnings) != 1 || !strings.Contains(late.secret.Warnings[0], "takes long") {
		t.Errorf("the answer warns of %q", late.secret.Warnings)
	}
}

// A cold start without the service fails soon, and reads succeed once the service is
// back.
func TestOutage_coldStart(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	const clients, attempts = 50, 3
	for _, outage := range []struct {
		name       string
		begin, end func()
		// counted says whether the requests reach what counts them.
		counted bool
	}{
		{"refusing-connections", func() { s.check(s.service.Refuse()) }, func() { s.check(s.service.Accept()) }, false},
		{"failing", func() { s.sim.Inject(apicsim.Fault{Kind: apicsim.KindStatus}) }, s.sim.ClearFault, true},
		{"hanging", func() { s.sim.Inject(apicsim.Fault{Kind: apicsim.KindHang}) }, s.sim.ClearFault, true},
	} {
		s.writeConfig(outage.name, map[string]any{"verify": false, "request_timeout": "1s", "max_retries": attempts - 1})
		outage.begin()
		before := s.sim.Counts().Exchanges
		readings := s.rush(clients, 1, outage.name)
		// Twice as many only if the machine is so slow that a client comes after
		// the backoff.
		if sent := s.sim.Counts().Exchanges - before; outage.counted && sent != attempts && sent != 2*attempts {
			t.Errorf("%s: %d clients caused %d requests, want %d", outage.name, clients, sent, attempts)
		}
		for _, r := range readings {
			if err := soundFailure(r, fmt.Sprintf("(%d attempts, ", attempts)); err != nil {
				t.Fatalf("%s: %v", outage.name, err)
			}
		}
		outage.end()
		s.eventually("reads succeed again", func() bool { return readOnce(s.client, outage.name).err == nil })
	}
}

// soundFailure checks that a read failed as it should without a service: with
// the right status, saying how often it was tried, and in the time of three
// attempts of a second with their waits.
func soundFailure(r reading, says string) error {
	switch code := status(r.err); {
	case code != http.StatusBadGateway && code != http.StatusServiceUnavailable:
		return fmt.Errorf("a read was answered %d: %v", code, r.err)
	case !strings.Contains(r.err.Error(), says):
		return fmt.Errorf("the answer does not say %q: %w", says, r.err)
	case r.took > 10*time.Second:
		return fmt.Errorf("a read took %s", r.took)
	default:
		return nil
	}
}

// A revoked key is the client's to fix, and is not sent again and again.
func TestOutage_revokedKey(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.writeConfig("us-south", map[string]any{"verify": false})
	s.sim.RevokeKey(s.key)
	for range 20 {
		r := readOnce(s.client, "us-south")
		if status(r.err) != http.StatusBadRequest || !strings.Contains(r.err.Error(), "refused the API key (HTTP 401)") {
			t.Fatalf("answered %v", r.err)
		}
	}
	// More than one only if the machine is so slow that the backoff of the first ends.
	if got := s.sim.Counts().Refused; got > 3 {
		t.Errorf("20 reads sent the key %d times", got)
	}
	s.sim.AddKey(s.key)
	s.eventually("the key that was put right is tried again", func() bool { return s.tryWrite("apic/config/us-south", s.configData(nil)) == nil })
	s.readToken("us-south")
}
