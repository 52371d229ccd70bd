// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

const (
	// longestElection bounds a reader's wait. With a performance multiplier of 1 the
	// followers miss their leader after one to two seconds and elect another in one
	// more, or in some if the votes are split. That one starts the plugin, which gets a
	// token: three seconds in all where nothing else runs. The rest is for other tests.
	longestElection = 15 * time.Second

	// longestRotation bounds the first rotation of a new leader, which may have to clean
	// up first and then waits for IAM's parts.
	longestRotation = 90 * time.Second

	// momentWithin bounds the time until a rotation comes to a moment. It is more than a
	// new leader may hold deletions back.
	momentWithin = time.Minute

	// reconcilesWithin is how long what the last kills have left may be there.
	reconcilesWithin = 5 * time.Minute

	// oneTick is more than the minute after which Vault has the engine look again for
	// what is left to do.
	oneTick = 65 * time.Second
)

// killMoments are where rotations lose their leader. What takes longest to clean up
// is made first.
func killMoments() []moment {
	return []moment{
		{step: createKey, fate: late},
		{step: createKey, fate: unanswered, status: http.StatusCreated},
		{step: deleteOldKey, fate: lost},
		{step: tryCandidate, fate: delivered, status: http.StatusUnauthorized}, // It then waits for IAM.
		{step: tryCandidate, fate: delivered, status: http.StatusOK},           // It then stores the key.
		{step: deleteOldKey, fate: unanswered, status: http.StatusNoContent},
	}
}

// TestCluster_readersAndOneKeySurviveEveryLeader kills the leaders of a raft cluster,
// and their plugins, in the middle of rotations while clients read.
func TestCluster_readersAndOneKeySurviveEveryLeader(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.lag(2 * time.Second)
	c.leader().writeConfig("us-south", map[string]any{
		"iam_url": c.service.URL(),
		// A replaced key is deleted at once; where nothing else is done, Vault passes over the field.
		"rotation_grace_period": "0s",
	})
	stopReading := c.readOn(20, 100*time.Millisecond, "us-south")
	rotator := c.rotateOn("us-south")
	rotator.await()
	for _, m := range killMoments() {
		c.killLeaderAt(m)
	}
	rotator.await()
	done, failures := rotator.stop()
	c.requireOneKeyForGood("us-south")
	perReader := stopReading()

	readings, waited := slices.Concat(perReader...), longestWait(perReader)
	t.Logf("%d kills; %d reads, and %d that failed; the longest wait for a token was %s; %d rotations, and %d that failed",
		len(killMoments()), len(readings), len(failed(readings)), waited.Round(10*time.Millisecond), done, len(failures))
	if waited > longestElection {
		t.Errorf("a reader waited %s for a token", waited)
	}
	for _, r := range failed(readings) {
		failures = append(failures, r.err)
	}
	c.requireLeaderless(failures)
	c.requireNoTokenOfADeletedKey(slices.DeleteFunc(readings, func(r reading) bool { return r.err != nil }))
}

// lag has IAM be slow to know the keys that it creates. This is the place for
// finer lags: of each part of IAM on its own, and of deletions.
func (c *cluster) lag(d time.Duration) {
	c.sim.SetLag(apicsim.Lag{Tokens: d, List: d, Get: d / 2, Delete: d / 2})
}

// killLeaderAt kills the active server and its plugin at a moment of a rotation. It
// returns when the server is back as a voter.
func (c *cluster) killLeaderAt(m moment) {
	c.Helper()
	leader := c.leader()
	if len(leader.pluginPIDs()) == 0 {
		c.Error("the leader has no plugin process")
	}
	armed := c.gate.arm(m)
	defer close(armed.replaced)
	select {
	case <-armed.reached:
	case <-time.After(momentWithin):
		c.Errorf("no rotation came to %q; the leader is killed all the same", m)
	}
	if m.fate == delivered {
		// What the answer leads to takes some milliseconds, and the kill may come in any.
		time.Sleep(rand.N(20 * time.Millisecond))
	}
	leader.kill()
	c.gate.disarm()
	close(armed.killed)
	killed := time.Now()
	c.leader()
	elected := time.Since(killed)
	c.restart(leader)
	c.awaitVoters()
	c.Logf("killed the leader at %q: another one after %s, all voters after %s",
		m, elected.Round(10*time.Millisecond), time.Since(killed).Round(10*time.Millisecond))
}

// requireOneKeyForGood waits until IAM has one key, which is the stored one, and then
// until the engine has had the time to spoil that. In the end the key has to work.
func (c *cluster) requireOneKeyForGood(name string) {
	c.Helper()
	began := time.Now()
	if !until(reconcilesWithin, nil, func() bool { return c.hasOneKey(name) }) {
		c.Fatalf("IAM holds %d keys, and not just the stored one", len(c.liveKeys()))
	}
	reconciled := time.Since(began)
	spoilt := until(oneTick-reconciled, nil, func() bool { return len(c.liveKeys()) != 1 })
	if spoilt || !c.hasOneKey(name) {
		c.Fatalf("IAM held just the stored key, and then %d keys, and not just the stored one", len(c.liveKeys()))
	}
	secret, err := c.leader().client.Logical().Write("apic/token/"+name, nil)
	c.check(err)
	if c.exchangedKey(secret.Data["token_id"].(string)) != c.liveKeys()[0].KeyID {
		c.Error("the token was issued for another key than the one that IAM holds")
	}
	c.Logf("one key was left %s after the last rotation", reconciled.Round(10*time.Millisecond))
}

// hasOneKey asks again if a server falters.
func (c *cluster) hasOneKey(name string) bool {
	c.Helper()
	var stored string
	c.eventually("a config is answered", func() bool {
		config, err := c.leader().client.Logical().Read("apic/config/" + name)
		if err != nil || config == nil {
			return false
		}
		stored = configKeyID(config)
		return true
	})
	live := c.liveKeys()
	return len(live) == 1 && live[0].ID == stored
}

func (c *cluster) liveKeys() []apicsim.KeyInfo { return c.liveKeysOf(c.sim.Keys()[0].IAMID) }

// longestWait is the longest time from one token to the next that a reader got, or to
// the end.
func longestWait(perReader [][]reading) (longest time.Duration) {
	for _, readings := range perReader {
		last := readings[0].began
		for _, r := range readings {
			ended := r.began.Add(r.took)
			longest = max(longest, ended.Sub(last))
			if r.err == nil {
				last = ended
			}
		}
	}
	return longest
}

// requireLeaderless fails if something failed for another reason than that its server
// was dead or sealed, or that there was no leader.
func (c *cluster) requireLeaderless(failures []error) {
	c.Helper()
	others := slices.DeleteFunc(failures, isLeaderless)
	if len(others) > 0 {
		c.Errorf("%d calls failed though there was a leader, the first with: %v", len(others), others[0])
	}
}

func isLeaderless(err error) bool {
	var answered *api.ResponseError
	if errors.As(err, &answered) {
		said := strings.Join(answered.Errors, "; ")
		return slices.ContainsFunc([]string{
			"Vault is sealed", "no active Vault instance found", "local node not active but active cluster node not found",
		}, func(text string) bool { return strings.Contains(said, text) })
	}
	var unanswered *url.Error
	return errors.Is(err, errRedirected) || errors.As(err, &unanswered) && !unanswered.Timeout()
}

func TestLongestWait_isFromTokenToToken(t *testing.T) {
	start := time.Now()
	at := func(began, took time.Duration, err error) reading {
		return reading{began: start.Add(began * time.Second), took: took * time.Second, err: err}
	}
	dead := errors.New("dead")
	for name, c := range map[string]struct {
		readings []reading
		want     time.Duration
	}{
		"a slow read":                 {[]reading{at(0, 1, nil), at(2, 5, nil), at(7, 1, nil)}, 6},
		"failures between two tokens": {[]reading{at(0, 1, nil), at(2, 1, dead), at(4, 1, dead), at(6, 1, nil)}, 6},
		"failures before the first":   {[]reading{at(0, 1, dead), at(3, 1, nil)}, 4},
		"failures to the end":         {[]reading{at(0, 1, nil), at(2, 1, dead), at(8, 1, dead)}, 8},
	} {
		others := []reading{at(0, 1, nil), at(1, 1, nil)}
		if got := longestWait([][]reading{others, c.readings, others}); got != c.want*time.Second {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestIsLeaderless_nothingThatThePluginSays(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{&url.Error{Op: "Get", Err: syscall.ECONNREFUSED}, true},
		{&url.Error{Op: "Get", Err: context.DeadlineExceeded}, false},
		{errRedirected, true},
		{&api.ResponseError{StatusCode: 503, Errors: []string{"Vault is sealed"}}, true},
		{&api.ResponseError{StatusCode: 500, Errors: []string{"local node not active but active cluster node not found"}}, true},
		{&api.ResponseError{StatusCode: 503, Errors: []string{"read token: the login service refused the API key"}}, false},
		{&api.ResponseError{StatusCode: 409}, false},
	} {
		if got := isLeaderless(c.err); got != c.want {
			t.Errorf("%v: %t", c.err, got)
		}
	}
}
