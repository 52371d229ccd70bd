// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/apicsim"
)

// TestRenewal_fromOneShortLivedKey lives on a key that works once, within five minutes.
func TestRenewal_fromOneShortLivedKey(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.sim.SetPlatformKeys(apicsim.PlatformKeys{SingleUse: true})
	s.sim.SetTokenTTL(6 * time.Second)
	s.sim.AddLimitedKey(s.key, apicsim.KeyOptions{SingleUse: true, Life: 5 * time.Minute})
	data := s.serviceData("platform", s.service.URL(), nil)
	delete(data, "token_service")
	s.write("apic/config/platform", data)
	stop := s.crowd(5, 200*time.Millisecond, "platform")
	if printed := s.mustCLI("read", "apic/status/platform"); !strings.Contains(printed, "can_be_away_until") {
		t.Errorf("the status says %s", printed)
	}
	s.eventually("five tokens are issued", func() bool { return s.sim.Counts().Issued >= 5 })
	requireAllAnswered(t, stop())
	if printed := s.mustCLI("write", "-f", "apic/config/platform/rotate"); !strings.Contains(printed, "api_key_id") {
		t.Errorf("a rotation is answered with %s", printed)
	}
}

// TestRenewal_keysThatWorkMoreThanOnce has one key of Vault's get all tokens of a rotation period,
// and replaces it when that is asked for.
func TestRenewal_keysThatWorkMoreThanOnce(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.sim.SetPlatformKeys(apicsim.PlatformKeys{MaxTTL: 365 * 24 * time.Hour})
	s.sim.SetTokenTTL(6 * time.Second)
	s.write("apic/config/platform", s.serviceData("platform", s.service.URL(), map[string]any{"rotation_period": "168h"}))
	var keyID any
	s.eventually("Vault has a key of its own", func() bool {
		read := s.read("apic/config/platform")
		keyID = read.Data["api_key_id"]
		return keyID != nil
	})
	stop := s.crowd(5, 200*time.Millisecond, "platform")
	issued := s.sim.Counts().Issued
	s.eventually("five more tokens are issued", func() bool { return s.sim.Counts().Issued >= issued+5 })
	read := s.read("apic/config/platform")
	if read.Data["api_key_id"] != keyID {
		t.Errorf("the key is %v, not %v, though no rotation was due", read.Data["api_key_id"], keyID)
	}
	next, err := s.rotate("platform")
	s.check(err)
	if next == "" || next == keyID {
		t.Errorf("a rotation of the key %v answers %q", keyID, next)
	}
	requireAllAnswered(t, stop())
}

// TestRenewal_refusedCreationWarns is reported to the client that writes the config.
func TestRenewal_refusedCreationWarns(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.sim.SetPlatformKeys(apicsim.PlatformKeys{Refuse: 403})
	secret := s.write("apic/config/platform", s.serviceData("platform", s.service.URL(), nil))
	if secret == nil || !strings.Contains(fmt.Sprint(secret.Warnings), "HTTP 403") {
		t.Errorf("the response is %v", secret)
	}
	s.readToken("platform")
}

const (
	// renewingConfigs share the thousand tokens.
	renewingConfigs = 400
	// renewedTTL is that of each token: long enough for what is left of it, when a token is due, to
	// outlive an election and the half minute in which a new leader makes no key.
	renewedTTL = 4 * time.Minute
	// renewedWithin bounds the time for a thousand tokens.
	renewedWithin = 15 * time.Minute
)

// TestCluster_aThousandTokensFromShortLivedKeys has configs that were each given one
// key, which works once within five minutes, renew a thousand tokens. Leaders are
// killed and step down meanwhile.
func TestCluster_aThousandTokensFromShortLivedKeys(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.sim.SetTokenTTL(renewedTTL)
	c.sim.SetPlatformKeys(apicsim.PlatformKeys{SingleUse: true})
	names := c.writeRenewing(renewingConfigs)
	var reads []func() reading
	for _, f := range c.newFollowers(20) {
		reads = append(reads, func() reading { return f.read(names[rand.IntN(len(names))]) })
	}
	stop := c.crowdOf(100*time.Millisecond, reads)
	for range 2 {
		time.Sleep(renewedTTL / 4) // Some tokens get due in between, and some meanwhile.
		c.stepDown()
		time.Sleep(renewedTTL / 4)
		leader := c.leader()
		leader.kill()
		c.leader()
		c.restart(leader)
		c.awaitVoters()
	}
	done := until(renewedWithin, nil, func() bool { return c.sim.Counts().Issued >= renewingConfigs+1000 })
	readings := slices.Concat(stop()...)
	t.Logf("%d tokens for %d configs; %d reads, and %d without a leader", c.sim.Counts().Issued, renewingConfigs, len(readings), len(failed(readings)))
	if !done {
		t.Error("a thousand tokens were not issued")
	}
	var failures []error
	for _, r := range failed(readings) {
		failures = append(failures, r.err)
	}
	c.requireLeaderless(failures)
	for _, name := range names {
		c.leader().readToken(name)
	}
	c.requireNoOrphans()
}

// writeRenewing writes configs of the platform service, each with a key of its own.
func (c *cluster) writeRenewing(count int) (names []string) {
	c.Helper()
	leader, next := c.leader(), make(chan string, count)
	for i := range count {
		names = append(names, fmt.Sprintf("saas-%d", i))
		next <- names[i]
	}
	close(next)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for name := range next {
				key := apicsim.NewKeyValue()
				c.sim.AddLimitedKey(key, apicsim.KeyOptions{SingleUse: true, Life: 5 * time.Minute})
				data := c.serviceData("platform", c.service.URL(), map[string]any{"api_key": key, "refresh_before": "2m"})
				if _, err := leader.client.Logical().Write("apic/config/"+name, data); err != nil {
					c.Errorf("writing %s: %v", name, err)
				}
			}
		})
	}
	all.Wait()
	return names
}

// stepDown has another server lead.
func (c *cluster) stepDown() {
	c.Helper()
	leader := c.leader()
	c.check(leader.client.Sys().StepDown())
	c.eventually("another server leads", func() bool { return c.leader() != leader })
}

// requireNoOrphans waits until no more than two keys are left at the platform for each config.
func (c *cluster) requireNoOrphans() {
	c.Helper()
	left := func() (n int) {
		for _, k := range c.sim.Keys() {
			if k.CreatedByAPI && k.Exists() {
				n++
			}
		}
		return n
	}
	if !until(reconcilesWithin, nil, func() bool { return left() <= 2*renewingConfigs }) {
		c.Errorf("%d keys are left at the platform for %d configs", left(), renewingConfigs)
	}
}
