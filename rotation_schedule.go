// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/queue"
)

const (
	// rotationsAtOnce bounds the scheduled rotations that run together, for the
	// service's sake.
	rotationsAtOnce = 4

	firstRotationRetry = time.Minute
	maxRotationRetry   = time.Hour
)

// schedule knows which config's key is to be rotated next, and which configs hold
// the same key. It is filled from storage once, where writes are safe, and follows
// each write from then on, so that a tick at which nothing is due costs nothing.
type schedule struct {
	slots chan struct{}

	mu sync.Mutex
	// queue orders the configs that have a rotation_period by their next attempt,
	// in Unix seconds.
	queue *queue.PriorityQueue
	// holders are the configs that hold a key, by the key's digest.
	holders  map[[sha256.Size]byte]map[string]bool
	keys     map[string][sha256.Size]byte
	failures map[string]*rotationFailure
	filled   bool
}

// rotationFailure is what is remembered of failed rotations in a row.
type rotationFailure struct {
	count int
	last  error
	at    time.Time
}

func newSchedule() *schedule {
	return &schedule{
		slots:    make(chan struct{}, rotationsAtOnce),
		queue:    queue.New(),
		holders:  make(map[[sha256.Size]byte]map[string]bool),
		keys:     make(map[string][sha256.Size]byte),
		failures: make(map[string]*rotationFailure),
	}
}

// nextRotation is up to a tenth of the period early, so that configs which were
// written together are not rotated together.
func nextRotation(now time.Time, period time.Duration) time.Time {
	return now.Add(period - rand.N(period/10)).Truncate(time.Second)
}

// written takes note of a config that was just stored, or of its deletion if it is
// nil. Its failures are forgiven. The caller holds name's lock.
func (s *schedule) written(name string, c *config) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.failures, name)
	s.follow(name, c)
}

// read takes note of a config as it was found in storage, or not found if it is
// nil. The caller holds name's lock.
func (s *schedule) read(name string, c *config) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.follow(name, c)
}

// follow replaces what is known of name. The caller holds the lock.
func (s *schedule) follow(name string, c *config) {
	s.forget(name)
	if c == nil {
		return
	}
	digest := sha256.Sum256([]byte(c.APIKey))
	if s.holders[digest] == nil {
		s.holders[digest] = make(map[string]bool)
	}
	s.holders[digest][name] = true
	s.keys[name] = digest
	if due := c.rotationDue(time.Now()); !due.IsZero() {
		s.push(name, due)
	}
}

// forget drops name's key and next attempt. The caller holds the lock.
func (s *schedule) forget(name string) {
	_, _ = s.queue.PopByKey(name) // It fails only for an empty name.
	digest, known := s.keys[name]
	if !known {
		return
	}
	delete(s.keys, name)
	delete(s.holders[digest], name)
	if len(s.holders[digest]) == 0 {
		delete(s.holders, digest)
	}
}

// push orders name's next attempt, unless there is one in the queue. The caller
// holds the lock.
func (s *schedule) push(name string, at time.Time) {
	_ = s.queue.Push(&queue.Item{Key: name, Priority: at.Unix()})
}

// failed remembers a failed rotation and, of a config that is rotated by schedule,
// puts off the next attempt, for longer each time.
func (s *schedule) failed(name string, scheduled bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, exists := s.keys[name]; !exists {
		return
	}
	failure := s.failures[name]
	if failure == nil {
		failure = &rotationFailure{}
		s.failures[name] = failure
	}
	failure.count++
	failure.last, failure.at = err, time.Now()
	if !scheduled {
		return
	}
	_, _ = s.queue.PopByKey(name)
	s.push(name, failure.at.Add(min(firstRotationRetry<<min(failure.count-1, 16), maxRotationRetry)))
}

// again puts a config back into the queue that was taken out and whose rotation
// did not even begin. One that is there already stays where it is.
func (s *schedule) again(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, exists := s.keys[name]; exists {
		s.push(name, time.Now().Add(firstRotationRetry))
	}
}

// failure returns what is remembered of name's failed rotations in a row; its count
// is 0 if there are none.
func (s *schedule) failure(name string) rotationFailure {
	s.mu.Lock()
	defer s.mu.Unlock()
	if failure := s.failures[name]; failure != nil {
		return *failure
	}
	return rotationFailure{}
}

// otherHolder returns the name of another config with name's key, or nothing.
func (s *schedule) otherHolder(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for other := range s.holders[s.keys[name]] {
		if other != name {
			return other
		}
	}
	return ""
}

// refill has all configs read again, because another node wrote one.
func (s *schedule) refill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.filled = false
}

func (s *schedule) isFilled() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.filled
}

// popDue takes the first config whose rotation is due.
func (s *schedule) popDue(now time.Time) (name string, due bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	first, err := s.queue.Pop()
	if err != nil {
		return "", false // The queue is empty.
	}
	if first.Priority > now.Unix() {
		_ = s.queue.Push(first)
		return "", false
	}
	return first.Key, true
}

// fillSchedule reads all configs once. A write that happens meanwhile is not lost: each
// config is read, and followed, under its lock.
func (b *backend) fillSchedule(ctx context.Context, s logical.Storage) error {
	if b.schedule.isFilled() {
		return nil
	}
	names, err := s.List(ctx, configStoragePrefix)
	if err != nil {
		return storageError("listing configs", err)
	}
	for _, name := range names {
		if err := b.followStored(ctx, s, name); err != nil {
			return err
		}
	}
	b.schedule.mu.Lock()
	defer b.schedule.mu.Unlock()
	b.schedule.filled = true
	return nil
}

// followStored reads one config for the schedule.
func (b *backend) followStored(ctx context.Context, s logical.Storage, name string) error {
	defer b.entries.locks.lock(name)()
	stored, err := b.loadForSchedule(ctx, s, name)
	if err != nil {
		return err
	}
	b.schedule.read(name, stored)
	return nil
}

// loadForSchedule returns a stored config, or nil if there is none that can be
// decoded.
func (b *backend) loadForSchedule(ctx context.Context, s logical.Storage, name string) (*config, error) {
	stored, err := loadConfig(ctx, s, name)
	var unreadable *unreadableError
	if errors.As(err, &unreadable) {
		b.Logger().Warn("config is left out of scheduled rotation", "config", name, "reason", err)
		return nil, nil
	}
	return stored, err
}

// periodic is called about once a minute. It starts what is due and returns.
func (b *backend) periodic(_ context.Context, req *logical.Request) error {
	if !b.WriteSafeReplicationState() {
		return nil
	}
	if b.unsettled.Swap(false) {
		go b.settleAll(req.Storage)
	}
	if b.schedule.isFilled() {
		b.rotateDue(req.Storage)
		return nil
	}
	// In the background, because a reload of the mount waits for the end of a tick.
	go b.fillAndRotate(req.Storage)
	return nil
}

func (b *backend) fillAndRotate(s logical.Storage) {
	defer b.logPanic("filling the schedule of rotations")
	if err := b.fillSchedule(b.loaded, s); err != nil {
		if b.loaded.Err() == nil {
			b.Logger().Warn("the schedule of rotations is filled at the next tick", "reason", err)
		}
		return
	}
	b.rotateDue(s)
}

// rotateDue starts as many rotations as may run together. Each goroutine goes on
// with the next one that is due until there is none.
func (b *backend) rotateDue(s logical.Storage) {
	for {
		select {
		case b.schedule.slots <- struct{}{}:
		default:
			return
		}
		name, due := b.schedule.popDue(time.Now())
		if !due {
			<-b.schedule.slots
			return
		}
		go func() {
			defer func() { <-b.schedule.slots }()
			for ; due && b.loaded.Err() == nil; name, due = b.schedule.popDue(time.Now()) {
				b.rotateBySchedule(s, name)
			}
		}()
	}
}

// rotateBySchedule has name tried again if it fails, be it by a panic.
func (b *backend) rotateBySchedule(s logical.Storage, name string) {
	failed := true
	defer func() {
		if failed {
			b.schedule.again(name)
		}
	}()
	defer b.logPanic("rotating by schedule")
	// The error is logged, and kept for status/<name>, where it happens.
	failed = b.rotateIfDue(b.loaded, s, name) != nil
}

// rotateIfDue looks again before it rotates: a write whose storage call failed may
// have put the rotation off all the same.
func (b *backend) rotateIfDue(ctx context.Context, s logical.Storage, name string) error {
	stored, err := b.loadForSchedule(ctx, s, name)
	if err != nil {
		return err
	}
	now := time.Now()
	if stored == nil || stored.NextRotation.IsZero() || now.Before(stored.rotationDue(now)) {
		return b.followStored(ctx, s, name)
	}
	_, err = b.rotate(ctx, s, name)
	return err
}
