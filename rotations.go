// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/framework"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/metrics"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/schedule"
	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// readAgain is how long after a config could not be read that is tried again.
const readAgain = time.Minute

// rotations decides when the protocol of internal/rotation has something to do for a
// config, and tells what came of it. It begins when it is started, on a node that
// may write.
type rotations struct {
	configs  *configStore
	engine   *rotation.Engine
	schedule *schedule.Queue
	metrics  *metrics.Metrics
	events   *events
	vault    *framework.Backend

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	// listing is a mutex that a context can interrupt; it guards listed and unread.
	// listed: all were read after the last late write; unread: those that failed.
	listing chan struct{}
	listed  bool
	unread  []rotation.Ref

	mu              sync.Mutex
	started, closed bool
	// advancing are the records that the schedule is at. known are the revisions that it has seen
	// of records with something to do, now or later: most configs have nothing.
	advancing map[rotation.Ref]bool
	known     map[rotation.Ref]string
}

func newRotations(configs *configStore, issuer rotation.Issuer, m *metrics.Metrics, e *events, vault *framework.Backend) *rotations {
	r := &rotations{
		configs: configs, metrics: m, events: e, vault: vault,
		listing: make(chan struct{}, 1), advancing: make(map[rotation.Ref]bool), known: make(map[rotation.Ref]string),
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.engine = rotation.NewEngine(rotation.Options{Store: configs, Issuer: issuer, Holders: configs.holders, Observe: r.observe, Wake: r.wake})
	r.schedule = schedule.New(schedule.Options{
		Run:         r.advance,
		Unavailable: isIssuerUnavailable,
		Panicked:    func(_ string, value any) { reportPanic(vault.Logger(), value, "rotating a key") },
	})
	configs.observer = r.upsert
	return r
}

// start begins the work in the background, once.
func (r *rotations) start() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.started || r.closed {
		return
	}
	r.started = true
	r.wg.Go(r.readInBackground)
}

// Close ends what is done in the background. What it leaves unfinished is in the
// stored records.
func (r *rotations) Close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.cancel()
	r.schedule.Close()
	r.engine.Close()
	r.wg.Wait()
}

// readInBackground reads each config once, when no late write of the process before can
// take effect any more, so that the schedule knows what is due and the holders which key is
// whose. Configs that cannot be read are tried again, and keep nothing waiting but the
// deletion of keys.
func (r *rotations) readInBackground() {
	for wait := rotation.LateWriteTime + time.Millisecond; sleep(r.ctx, wait); wait = readAgain {
		err := r.readAll(r.ctx, func() bool { return false })
		if err == nil {
			r.configs.holders.Complete()
			return
		}
		if r.ctx.Err() == nil {
			r.vault.Logger().Warn("not all configs can be read; until they are, or are deleted, no replaced api key is deleted", "reason", err)
		}
	}
}

// ensureListed has all configs read if that has not happened since the start, so that
// no config takes a key whose deletion is under way for another one.
func (r *rotations) ensureListed(ctx context.Context) error {
	isListed := r.configs.holders.IsListed
	if isListed() {
		return nil
	}
	// A config that cannot be read has no deletion under way in this process.
	if err := r.readAll(ctx, isListed); err != nil && !isListed() {
		return err
	}
	return nil
}

// readAll reads all configs, or those that could not be read before, unless that turns out
// to be done when its turn comes. A panic is an error, and the end of no process.
func (r *rotations) readAll(ctx context.Context, done func() bool) (err error) {
	defer func() {
		if p := recover(); p != nil {
			reportPanic(r.vault.Logger(), p, "reading the configs for the schedule of rotations")
			err = errors.New("the plugin failed; the log says where")
		}
	}()
	select {
	case r.listing <- struct{}{}:
	case <-ctx.Done():
		return storageError("waiting for the configs to be read", ctx.Err())
	}
	defer func() { <-r.listing }()
	if done() {
		return nil
	}
	late := r.configs.isPastLateWrites()
	unread := r.unread
	if !r.listed {
		if unread, err = r.configs.refs(ctx); err != nil {
			return err
		}
	}
	unread, err = r.configs.readEach(ctx, unread)
	if ctx.Err() != nil {
		return storageError("reading the configs", ctx.Err())
	}
	if late {
		r.listed, r.unread = true, unread
	}
	r.configs.holders.Listed()
	return err
}

// upsert brings the schedule up to date with what is stored. While the schedule itself
// changes a record, its advance says when to come back. Nothing is to be done for one that
// was only read again: its reader may be about to write it. A node that may not write has
// no schedule.
func (r *rotations) upsert(seen sighting) {
	if seen.record == nil && seen.doubtful.IsZero() {
		r.clear(seen.ref)
		r.schedule.Remove(jobOf(seen.ref))
		r.engine.Forget(seen.ref)
		return
	}
	if !r.isNews(seen) || r.isAdvancing(seen.ref) && r.configs.claimOf(seen.ref) != nil {
		return
	}
	due := seen.due()
	if due.IsZero() {
		r.clear(seen.ref)
		r.schedule.Remove(jobOf(seen.ref))
		return
	}
	r.schedule.Upsert(jobOf(seen.ref), issuerOf(seen.record, seen.plan), due)
}

// due is when there is something to do, zero for never.
func (s sighting) due() time.Time {
	if s.record == nil {
		return s.doubtful
	}
	return earlier(s.record.DueAt(s.plan), s.doubtful)
}

// earlier is the first of two times, of which zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// isNews says whether the schedule does not know it yet, and has it be known. What turns out to have
// nothing to do is not kept, and is news each time.
func (r *rotations) isNews(seen sighting) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.started {
		return false
	}
	news := !seen.doubtful.IsZero() || r.known[seen.ref] != seen.revision
	r.known[seen.ref] = seen.revision
	return news
}

// clear makes the next sighting of a record news.
func (r *rotations) clear(ref rotation.Ref) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.known, ref)
}

// wake has the schedule look after what a rotation that was asked for has left.
func (r *rotations) wake(ref rotation.Ref) {
	r.clear(ref)
	if err := r.configs.read(r.ctx, ref); err != nil && r.ctx.Err() == nil {
		r.vault.Logger().Warn("a config cannot be read after its rotation", "config", ref.Config, "reason", err)
	}
}

// issuerOf groups what is backed off together: what is for the same issuer, trusted by the
// same CA.
func issuerOf(record *rotation.Record, plan rotation.Plan) string {
	if record != nil {
		for _, k := range record.Retired {
			if k.Binding.Issuer != "" {
				return issuerGroup(k.Binding.Issuer, k.Binding.CACert)
			}
		}
	}
	return issuerGroup(plan.Issuer, plan.CACert)
}

// issuerGroup begins with the issuer's address. No address has a space.
func issuerGroup(issuer, caCert string) string {
	if caCert == "" {
		return issuer
	}
	return fmt.Sprintf("%s %x", issuer, sha256.Sum256([]byte(caCert)))
}

func (r *rotations) advance(ctx context.Context, job string) (next time.Time, err error) {
	ref := refOf(job)
	if r.engine.IsAsked(ref) {
		return time.Now().Add(time.Second), nil // The request that asked for it is at it.
	}
	r.setAdvancing(ref, true)
	defer r.setAdvancing(ref, false)
	next, err = r.engine.Advance(ctx, ref)
	if errors.Is(err, rotation.ErrNoRecord) || next.IsZero() && rotation.IsUsedUp(err) {
		err = nil // The schedule is not to try again: nothing is there to do, or nothing to do it with.
	}
	return earlier(next, r.configs.doubts.until(ref)), err
}

// isIssuerUnavailable says whether an error is that of a group's issuer, and not of a
// token service, and for how long it asks to be called no more. That a config does not
// trust it tells nothing, and neither does an answer that no config can use.
func isIssuerUnavailable(group string, err error) (retryAfter time.Duration, unavailable bool) {
	issuer, _, _ := strings.Cut(group, " ")
	var failed *upstream.Error
	if !errors.As(err, &failed) || failed.Outcome != upstream.Unavailable || failed.Untrusted || failed.Host != hostOf(issuer) {
		return 0, false
	}
	wasDown := failed.Attempts > 0 && (failed.Status == 0 || failed.Status == http.StatusTooManyRequests || failed.Status >= http.StatusInternalServerError)
	return failed.RetryAfter, wasDown || failed.RetryAfter > 0
}

func (r *rotations) isAdvancing(ref rotation.Ref) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.advancing[ref]
}

func (r *rotations) setAdvancing(ref rotation.Ref, advancing bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !advancing {
		delete(r.advancing, ref)
		return
	}
	r.advancing[ref] = true
}

// jobOf and refOf name records to the schedule. No config's name has a slash.
func jobOf(ref rotation.Ref) string {
	if ref.Tombstone == "" {
		return ref.Config
	}
	return ref.Config + "/" + ref.Tombstone
}

func refOf(job string) rotation.Ref {
	name, uid, _ := strings.Cut(job, "/")
	return rotation.Ref{Config: name, Tombstone: uid}
}

// rotate replaces name's key now. grace is how long the old one lives on, nil for the
// config's own time.
func (r *rotations) rotate(ctx context.Context, name string, grace *time.Duration) error {
	ref := rotation.Ref{Config: name}
	present, err := r.configs.Get(ctx, name)
	if err != nil {
		return err
	}
	if present != nil && present.config.renews() && !present.config.plan().Reuse {
		have := ""
		if kept := present.config.Keys.Token; kept != nil {
			have = kept.ID
		}
		_, err = r.engine.Renew(ctx, ref, have, false)
		return err
	}
	_, err = r.engine.Rotate(ctx, ref, grace)
	return err
}

// bury deletes what it can of a deleted config's keys, which have these ids, before ctx
// ends. It returns the ids of those that are left for later, as far as is known.
func (r *rotations) bury(ctx context.Context, grave rotation.Ref, ids []string) (left []string) {
	left = slices.Clone(ids)
	for {
		next, err := r.engine.Advance(ctx, grave)
		if errors.Is(err, rotation.ErrNoRecord) {
			return nil
		}
		record, err := r.configs.tombstoneRecord(ctx, grave)
		switch {
		case err == nil && record == nil:
			return nil
		case err == nil:
			left = record.ManagedIDs()
		}
		deadline, _ := ctx.Deadline()
		if next.IsZero() || !next.Before(deadline) || !sleep(ctx, time.Until(next)) {
			return left
		}
	}
}

// status is what this process knows of a config's rotations.
func (r *rotations) status(name string) rotation.Status {
	return r.engine.Status(rotation.Ref{Config: name})
}

// clearFailures clears the failures of a config that somebody has written.
func (r *rotations) clearFailures(name string) { r.engine.ClearFailures(rotation.Ref{Config: name}) }

// observe counts, logs and tells what the protocol does.
func (r *rotations) observe(e rotation.Event) {
	name, log := e.Ref.Config, r.vault.Logger()
	switch e.Kind {
	case rotation.Rotated:
		r.metrics.Rotated(metrics.RotationSuccess)
		log.Info("api key rotated", "config", name, "key_id", e.KeyID)
		r.events.send(r.ctx, eventConfigRotate, name, "key_id", e.KeyID)
	case rotation.Renewed:
		r.metrics.Rotated(metrics.RotationSuccess)
		log.Info("token renewed", "config", name, "key_id", e.KeyID)
	case rotation.NotReusable:
		log.Warn("a key of this platform works once, so that each token needs a key of its own, and rotation_period has no effect", "config", name, "key_id", e.KeyID, "reason", e.Err)
	case rotation.Failed, rotation.Discarded:
		if e.Ref.Tombstone != "" {
			log.Warn("an api key of a deleted config is not deleted yet; it will be tried again", "config", name, "reason", e.Err)
			return
		}
		r.metrics.Rotated(metrics.RotationFailure)
		failed := "rotating the api key failed; the present one stays"
		if e.Renews { // Nothing may be left to stay, or to try again with.
			failed = "renewing the token failed"
		}
		log.Warn(failed, "config", name, "reason", e.Err)
		r.events.send(r.ctx, eventRotateFailed, name)
	case rotation.Recovered:
		log.Warn("an interrupted rotation had made an api key, which will be deleted at its issuer", "config", name, "key_id", e.KeyID)
	case rotation.KeyDisabled:
		log.Info("replaced api key disabled at its issuer", "config", name, "key_id", e.KeyID)
	case rotation.Deleted:
		log.Info("replaced api key deleted at its issuer", "config", name, "key_id", e.KeyID)
	case rotation.Expired:
		log.Warn("a replaced api key is given up: it could not be deleted at its issuer, and has expired, as far as Vault knows", "config", name, "key_id", e.KeyID)
	case rotation.CleanupFailed:
		log.Warn("a replaced api key is not deleted at its issuer yet; it will be tried again", "config", name, "key_id", e.KeyID, "reason", e.Err)
	case rotation.Panicked:
		log.Error("recovered from a panic; please report this", "operation", "rotating a key", "config", name, "reason", e.Err)
	}
}
