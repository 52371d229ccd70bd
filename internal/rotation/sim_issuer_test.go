// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package rotation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// issuer is one that exists, or the evil one, which answers what would harm others.
type issuer struct {
	*world
	name  string
	evil  bool
	clock time.Duration
	keys  []*issuerKey
	told  map[string]Details
	// granted is how long the keys live that a platform makes, and reusable says that they
	// work more than once.
	granted  time.Duration
	reusable bool
	// tellsNoEnd says that nobody is told when a key ends.
	tellsNoEnd bool
}

// view is a part of an issuer that gets to know of changes in its own time.
type view int

const (
	tokenView view = iota
	listView
	getView
	deleteView
	views
)

// issuerKey is a key at an issuer, with all that the world knows of it.
type issuerKey struct {
	*issuer
	details  Details
	value    Secret
	managed  bool
	created  time.Time
	disabled time.Time
	deleted  time.Time
	// appears and goes are how long each view takes to know of its creation and end.
	appears, goes [views]time.Duration
	// exempt says that a snapshot was restored that does not know the key, which is to be
	// kept; untold, that its id was never told.
	exempt, untold bool
	// exposed says that an operator had it used at the evil issuer.
	exposed bool
	// life is how long a platform takes the key, and used says that it has got a token.
	life time.Duration
	used bool
	// replaced is when each config last replaced it, and graces how long it was to live on.
	replaced map[Ref]time.Time
	graces   map[Ref]time.Duration
}

const (
	evilAddress = "evil"
	// evilCA is that of somebody on the network, who answers in the place of any issuer.
	evilCA = "evil-ca"
)

// at returns the issuer at an address: each has two.
func (w *world) at(address string) *issuer {
	if address == evilAddress {
		if w.issuers[evilAddress] == nil {
			w.issuers[evilAddress] = &issuer{world: w, name: evilAddress, evil: true, told: make(map[string]Details)}
		}
		return w.issuers[evilAddress]
	}
	return w.issuers[strings.TrimSuffix(address, "-private")]
}

func (i *issuer) now() time.Time { return time.Now().Add(i.clock) }

// add makes a key.
func (i *issuer) add(name, account, identity string, managed bool) *issuerKey {
	i.serial++
	k := &issuerKey{issuer: i, managed: managed, created: time.Now(), replaced: make(map[Ref]time.Time), graces: make(map[Ref]time.Duration)}
	k.value = Secret(fmt.Sprintf("value-%d", i.serial))
	if i.traits.shortens && len(name) > 38 {
		name = name[:38]
	}
	k.details = Details{ID: fmt.Sprintf("key-%d", i.serial), Name: name, AccountID: account, Identity: identity, CreatedAt: i.now()}
	for v := range views {
		if managed && i.traits.lag > 0 {
			k.appears[v] = time.Duration(i.random.Int64N(int64(i.traits.lag)))
		}
		if i.traits.lag > 0 {
			k.goes[v] = time.Duration(i.random.Int64N(int64(i.traits.lag)))
		}
	}
	if i.traits.platform {
		i.limit(k)
	}
	i.keys = append(i.keys, k)
	i.tokens[k.value] = k
	i.note("%s has the new key %s, %s of %s", i.name, k.details.ID, k.details.Name, identity)
	return k
}

// alive says whether the key exists, seen says whether a view knows it.
func (k *issuerKey) alive() bool { return k.deleted.IsZero() }

func (k *issuerKey) seen(v view) bool {
	now := time.Now()
	return now.Sub(k.created) >= k.appears[v] && (k.deleted.IsZero() || now.Sub(k.deleted) < k.goes[v])
}

func (k *issuerKey) usable() bool {
	return k.seen(tokenView) && k.disabled.IsZero() && (k.reusable || !k.used) && !k.expired()
}

func (k *issuerKey) expired() bool { return k.life > 0 && time.Since(k.created) >= k.life }

func (i *issuer) find(id string) *issuerKey {
	for _, k := range i.keys {
		if k.details.ID == id {
			return k
		}
	}
	return nil
}

var errDead = &upstream.Error{Service: "sim", Host: "sim", Reason: "is not there for a process that is dead", OutcomeUnknown: true}

func unavailable(unknown bool, after time.Duration) error {
	return &upstream.Error{Service: "sim", Host: "sim", Reason: "is unavailable", OutcomeUnknown: unknown, RetryAfter: after}
}

func refusal(why string) error {
	return &upstream.Error{Outcome: upstream.Refused, Service: "sim", Host: "sim", Reason: "refused: " + why}
}

// call is one request of a process: its way, its effect, the way back. Each of them may
// fail, and the process may be dead by then.
func (p *process) call(ctx context.Context, what string, effect func() error) error {
	if p.dead {
		return errDead
	}
	deadline := time.Now().Add(15 * time.Second)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	way := time.Duration(p.random.Int64N(int64(300 * time.Millisecond)))
	if !p.quiet && p.chance(0.05) {
		way = time.Duration(p.random.Int64N(int64(20 * time.Second)))
	}
	late := time.Until(deadline) < way
	p.sleep(min(way, max(time.Until(deadline), 0)))
	if late && what == "create" && p.chance(0.5) || p.dead && p.chance(0.5) {
		_ = effect() // Nobody gets to know.
		return errDead
	}
	switch {
	case p.dead || late:
		return errDead
	case ctx.Err() != nil:
		return unavailable(false, 0)
	}
	return p.faulty(what, effect)
}

func (p *process) faulty(what string, effect func() error) error {
	if p.quiet || !p.chance(p.traits.faults) {
		var err error
		p.survives(func() error { err = effect(); return err })
		p.sleep(time.Duration(p.random.Int64N(int64(200 * time.Millisecond))))
		if p.dead {
			return errDead
		}
		return err
	}
	kind := p.random.IntN(5)
	p.note("%s: fault %d of %s", p, kind, what)
	switch kind {
	case 0:
		return unavailable(p.chance(0.5), 0)
	case 1:
		return unavailable(false, time.Minute)
	case 2:
		return refusal("a fault")
	default:
		_ = effect()
		return unavailable(true, 0)
	}
}

// Login makes a process the port to all issuers.
func (p *process) Login(ctx context.Context, at Binding, value Secret) (Session, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := p.at(at.Issuer)
	if at.Kind == KindPlatform {
		return p.resume(i, value)
	}
	if at.CACert == evilCA {
		i = p.at(evilAddress)
	}
	var session Session
	err := p.call(ctx, "login", func() error {
		k := p.tokens[value]
		if i.evil {
			if k != nil && !k.exposed {
				p.fail("%s: key %s of %s is sent to the evil issuer, where no operator sent it", p, k.details.ID, k.name)
			}
			session = &simSession{process: p, issuer: i}
			return nil
		}
		switch {
		case k == nil || k.issuer != i || !k.seen(tokenView):
			return fmt.Errorf("login: %w", ErrNoSuchKey)
		case !k.disabled.IsZero():
			return refusal("the key is disabled")
		}
		session = &simSession{process: p, issuer: i, key: k}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return session, nil
}

// simSession is a session with the rights of one key's identity.
type simSession struct {
	*process
	issuer *issuer
	key    *issuerKey
	// bearer is a platform's.
	bearer *bearer
}

func (s *simSession) Close() {}

func (s *simSession) Now() time.Time { return s.issuer.now() }

// mine says whether the session's identity may see and change a key.
func (s *simSession) mine(k *issuerKey) bool {
	return k.details.Identity == s.key.details.Identity && k.details.AccountID == s.key.details.AccountID
}

func (s *simSession) Details(ctx context.Context) (Details, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var d Details
	if s.bearer != nil {
		return Details{AccountID: "account", Identity: s.bearer.identity}, nil
	}
	err := s.call(ctx, "details", func() error {
		if s.issuer.evil {
			d = s.issuer.victim()
			return nil
		}
		if !s.key.seen(tokenView) {
			return ErrNoSuchKey
		}
		d = s.key.details
		return nil
	})
	return d, err
}

func (s *simSession) Create(ctx context.Context, n NewKey) (Details, Secret, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var made *issuerKey
	var answer Details
	err := s.call(ctx, "create", func() error {
		if s.hasEnded() {
			return refusal("the token has ended")
		}
		if s.issuer.evil {
			answer = s.issuer.lie(n)
			return nil
		}
		if n.Of.Identity != s.key.details.Identity || n.Of.AccountID != s.key.details.AccountID {
			return refusal("another's identity")
		}
		if s.issuer.count(n.Of.Identity) >= 20 {
			return refusal("too many keys")
		}
		made = s.issuer.add(n.Name, n.Of.AccountID, n.Of.Identity, true)
		made.exempt = s.epochOf < s.world.epoch && !s.disk.recorded(made)
		if !s.quiet && s.traits.mixesUp && s.chance(0.4) {
			answer = s.issuer.mixUp(made)
			made.untold = answer.ID != made.details.ID
			return nil
		}
		answer = made.details
		s.disk.checkKeys("a creation")
		return nil
	})
	if err != nil {
		return Details{}, "", err
	}
	if s.issuer.evil {
		s.serial++
		return answer, Secret(fmt.Sprintf("evil-%d", s.serial)), nil
	}
	return answer, made.value, nil
}

// mixUp answers a creation with the id of another key of the same identity, as a proxy
// does that confuses two answers.
func (i *issuer) mixUp(made *issuerKey) Details {
	answer := made.details
	for _, k := range i.keys {
		if k != made && k.alive() && k.details.Identity == answer.Identity && i.chance(0.5) {
			answer.ID = k.details.ID
		}
	}
	i.note("%s answers %s in place of %s", i.name, answer.ID, made.details.ID)
	return answer
}

func (i *issuer) count(identity string) (n int) {
	for _, k := range i.keys {
		if k.alive() && k.details.Identity == identity {
			n++
		}
	}
	return n
}

func (s *simSession) Find(ctx context.Context, prefix string, of Binding) ([]Details, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []Details
	err := s.call(ctx, "find", func() error {
		if s.hasEnded() {
			return refusal("the token has ended")
		}
		if s.issuer.evil {
			if s.chance(0.3) {
				d := s.issuer.victim()
				d.AccountID, d.Identity = of.AccountID, of.Identity
				found = append(found, d)
			}
			return nil
		}
		for _, k := range s.issuer.keys {
			if s.mine(k) && k.seen(listView) && strings.HasPrefix(k.details.Name, prefix) {
				found = append(found, k.details)
			}
		}
		return nil
	})
	return found, err
}

// List is for people alone: no step of the protocol depends on it.
func (s *simSession) List(context.Context, Binding) ([]Details, error) {
	return nil, refusal("is not simulated")
}

func (s *simSession) Get(ctx context.Context, id string) (Details, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var d Details
	err := s.call(ctx, "get", func() error {
		if s.hasEnded() {
			return refusal("the token has ended")
		}
		if s.issuer.evil {
			var ok bool
			if d, ok = s.issuer.told[id]; !ok {
				return ErrNoSuchKey
			}
			return nil
		}
		k := s.issuer.find(id)
		if k == nil || !k.seen(getView) {
			return ErrNoSuchKey
		}
		if !s.mine(k) {
			return refusal("another's key")
		}
		d = k.details
		return nil
	})
	return d, err
}

func (s *simSession) Disable(ctx context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.call(ctx, "disable", func() error {
		k := s.issuer.find(id)
		switch {
		case s.issuer.evil:
			return nil
		case k == nil || !k.seen(getView):
			return ErrNoSuchKey
		case !s.mine(k):
			return refusal("another's key")
		case s.traits.noDisabling:
			return errors.ErrUnsupported
		}
		s.process.checkHarm(k, "disabled")
		k.disabled = time.Now()
		return nil
	})
}

func (s *simSession) Delete(ctx context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.call(ctx, "delete", func() error {
		if s.hasEnded() {
			return refusal("the token has ended")
		}
		k := s.issuer.find(id)
		switch {
		case s.issuer.evil:
			return nil
		case k == nil || !k.seen(deleteView) || !k.alive():
			return ErrNoSuchKey
		case !s.mine(k):
			return refusal("another's key")
		}
		s.note("%s deletes %s", s.process, k.details.ID)
		s.process.checkHarm(k, "deleted")
		s.process.checkDeletion(k)
		k.deleted = time.Now()
		return nil
	})
}

// victim is a key of somebody's.
func (i *issuer) victim() Details {
	real := i.issuers[pick(i.world, "iam-1", "iam-2")]
	if len(real.keys) == 0 {
		return Details{ID: "none", Name: "none", AccountID: "none", Identity: "none"}
	}
	d := real.keys[i.random.IntN(len(real.keys))].details
	i.told[d.ID] = d
	return d
}

// lie answers a creation with a victim's id, and what else would have it believed.
func (i *issuer) lie(n NewKey) Details {
	d := i.victim()
	if i.chance(0.8) {
		d.AccountID, d.Identity = n.Of.AccountID, n.Of.Identity
	}
	if i.chance(0.3) {
		d.Name = n.Name
	}
	i.told[d.ID] = d
	return d
}

// managedKeys are those of all issuers that rotation has made and that exist.
func (w *world) managedKeys() (keys []*issuerKey) {
	for _, name := range []string{"iam-1", "iam-2"} {
		for _, k := range w.issuers[name].keys {
			if k.managed && k.alive() && !k.expired() && !k.exempt && !k.untold {
				keys = append(keys, k)
			}
		}
	}
	return slices.Clip(keys)
}
