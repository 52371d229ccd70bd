// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
)

func TestNameLocks_excludeOthersOfTheSameNameOnly(t *testing.T) {
	var locks nameLocks
	unlock := locks.lock("a")
	locks.lock("b")()
	entered := make(chan struct{})
	go func() {
		defer locks.lock("a")()
		close(entered)
	}()
	for locks.users("a") < 2 {
		select {
		case <-entered:
			t.Fatal("two held the same lock")
		default:
			runtime.Gosched()
		}
	}
	select {
	case <-entered:
		t.Fatal("two held the same lock")
	default:
	}
	unlock()
	<-entered
}

func (l *nameLocks) users(name string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if held := l.byName[name]; held != nil {
		return held.users
	}
	return 0
}

func TestNameLocks_keepNoneForAnUnusedName(t *testing.T) {
	var locks nameLocks
	var users sync.WaitGroup
	count := 0
	for range 100 {
		users.Go(func() {
			defer locks.lock("a")()
			count++
		})
	}
	users.Wait()
	if count != 100 {
		t.Fatalf("%d of 100 held the lock", count)
	}
	if len(locks.byName) != 0 {
		t.Fatalf("%d locks are left", len(locks.byName))
	}
}

func TestNameLocks_waitEndsWithItsContext(t *testing.T) {
	var locks nameLocks
	unlock := locks.lock("a")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		_, err := locks.lockWithin(ctx, "a")
		ended <- err
	}()
	for locks.users("a") < 2 {
		runtime.Gosched()
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
	unlock()
	if len(locks.byName) != 0 {
		t.Errorf("%d locks are kept", len(locks.byName))
	}
}

func TestNameLocks_tryLockDoesNotWait(t *testing.T) {
	var locks nameLocks
	unlock := locks.lock("a")
	if _, ok := locks.tryLock("a"); ok {
		t.Error("two have the lock")
	}
	unlockOther, ok := locks.tryLock("b")
	if !ok {
		t.Error("another name is locked too")
	}
	unlock()
	unlockOther()
	unlock, ok = locks.tryLock("a")
	if !ok {
		t.Error("the lock was not given back")
	}
	unlock()
	if len(locks.byName) != 0 {
		t.Errorf("%d locks are kept", len(locks.byName))
	}
}
