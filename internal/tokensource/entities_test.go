// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package tokensource

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokenservice"
)

// entitiesTest runs in a bubble with sources of hour-long tokens for at most limit
// entities, and fails if what they hold is not released once, and only at the end.
func entitiesTest(t *testing.T, limit int, test func(t *testing.T, e *Entities, svc *service)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var released atomic.Int64
		svc := &service{life: time.Hour}
		e := NewEntities(Options{Exchanger: ExchangeFunc(svc.exchange), Release: func() { released.Add(1) }}, limit)
		test(t, e, svc)
		if got := released.Load(); got != 0 {
			t.Errorf("released %d times before the end", got)
		}
		e.Close()
		e.Close()
		time.Sleep(exchangeTimeout) // What is in flight ends by itself.
		synctest.Wait()
		if got := released.Load(); got != 1 {
			t.Errorf("released %d times", got)
		}
	})
}

// readAs returns the id of the token that an entity's reader gets.
func readAs(t *testing.T, e *Entities, entity string) string {
	t.Helper()
	a, err := e.Read(t.Context(), entity, 0)
	if err != nil {
		t.Error(err)
		return ""
	}
	return a.ID
}

func TestEntities_readersOfOneShareAnExchange(t *testing.T) {
	entitiesTest(t, 10, func(t *testing.T, e *Entities, svc *service) {
		svc.latency = time.Second
		var readers sync.WaitGroup
		var mu sync.Mutex
		got := make(map[string]string)
		for _, entity := range []string{"alice", "bob"} {
			for range 50 {
				readers.Go(func() {
					id := readAs(t, e, entity)
					mu.Lock()
					defer mu.Unlock()
					if other, ok := got[entity]; ok && other != id {
						t.Errorf("readers of %s got %s and %s", entity, other, id)
					}
					got[entity] = id
				})
			}
		}
		readers.Wait()
		if got["alice"] == got["bob"] {
			t.Error("two entities share a token")
		}
		if svc.count() != 2 {
			t.Errorf("%d exchanges", svc.count())
		}
	})
}

func TestEntities_leastRecentlyReadIsEvicted(t *testing.T) {
	entitiesTest(t, 1000, func(t *testing.T, e *Entities, svc *service) {
		ids := make(map[int]string)
		read := func(n int) string { return readAs(t, e, fmt.Sprint("entity-", n)) }
		for n := range 1000 {
			ids[n] = read(n)
		}
		read(0) // 1 is now the one that was not read for longest.
		read(1000)
		if count, _ := e.Tokens(); count != 1000 || svc.count() != 1001 {
			t.Fatalf("%d tokens, %d exchanges", count, svc.count())
		}
		for _, n := range []int{0, 2, 999} {
			if read(n) != ids[n] {
				t.Errorf("entity %d has lost its token", n)
			}
		}
		if read(1) == ids[1] {
			t.Error("the entity that was not read for longest has kept its token")
		}
	})
}

func TestEntities_evictedReadersGetTheirToken(t *testing.T) {
	entitiesTest(t, 1, func(t *testing.T, e *Entities, svc *service) {
		svc.latency = time.Second
		waiting := make(chan string, 1)
		go func() { waiting <- readAs(t, e, "alice") }()
		synctest.Wait()
		bob := readAs(t, e, "bob")
		if alice := <-waiting; alice == bob {
			t.Error("two entities share a token")
		}
		if svc.count() != 2 || len(e.leaving) != 0 {
			t.Errorf("%d exchanges, %d evicted sources", svc.count(), len(e.leaving))
		}
		time.Sleep(time.Hour) // Bob's token is replaced ahead of its end; Alice's source is closed.
		synctest.Wait()
		if svc.count() != 3 {
			t.Errorf("%d exchanges an hour later", svc.count())
		}
	})
}

func TestEntities_closeEndsTheWaitOfEvictedReadersToo(t *testing.T) {
	entitiesTest(t, 1, func(t *testing.T, e *Entities, svc *service) {
		svc.latency = time.Minute
		failed := make(chan error, 2)
		for _, entity := range []string{"alice", "bob"} {
			go func() {
				_, err := e.Read(t.Context(), entity, 0)
				failed <- err
			}()
			synctest.Wait()
		}
		if len(e.leaving) != 1 {
			t.Fatalf("%d evicted sources have readers", len(e.leaving))
		}
		e.Close()
		for range 2 {
			if err := <-failed; !errors.Is(err, ErrClosed) {
				t.Errorf("error is %v", err)
			}
		}
		if _, err := e.Read(t.Context(), "carol", 0); !errors.Is(err, ErrClosed) {
			t.Errorf("a later reader's error is %v", err)
		}
	})
}

// TestEntities_refusedKeyIsNotSentForEach has entities that have no token ask at once, and
// then one after the other.
func TestEntities_refusedKeyIsNotSentForEach(t *testing.T) {
	entitiesTest(t, 1000, func(t *testing.T, e *Entities, svc *service) {
		svc.latency, svc.err = time.Second, errRefused
		read := func(n int) {
			if _, err := e.Read(t.Context(), fmt.Sprint("entity-", n), 0); !errors.Is(err, errRefused) {
				t.Errorf("error is %v", err)
			}
		}
		var readers sync.WaitGroup
		for n := range 200 {
			readers.Go(func() { read(n) })
		}
		readers.Wait()
		if got := svc.count(); got != MaxExchanges {
			t.Errorf("%d exchanges at once", got)
		}
		for n := range 1000 {
			read(n)
		}
		if got := svc.count(); got != MaxExchanges {
			t.Errorf("%d exchanges during the backoff", got)
		}
	})
}

func TestEntities_exchangesAtATimeAreBounded(t *testing.T) {
	entitiesTest(t, 1000, func(t *testing.T, e *Entities, svc *service) {
		var mu sync.Mutex
		inFlight, most := 0, 0
		count := func(change int) {
			mu.Lock()
			defer mu.Unlock()
			inFlight += change
			most = max(most, inFlight)
		}
		exchanger := e.options.Exchanger
		e.options.Exchanger = ExchangeFunc(func(ctx context.Context) (*tokenservice.Token, error) {
			count(1)
			defer count(-1)
			return exchanger.Exchange(ctx)
		})
		svc.latency = time.Second
		started := time.Now()
		var readers sync.WaitGroup
		for n := range 80 {
			readers.Go(func() { readAs(t, e, fmt.Sprint("entity-", n)) })
		}
		readers.Wait()
		if most != MaxExchanges {
			t.Errorf("%d exchanges at a time", most)
		}
		if got := time.Since(started); got != 10*time.Second {
			t.Errorf("80 entities had their tokens after %s", got)
		}
	})
}

// TestEntities_idleOnesLapse has entities read once. A token that was read is replaced
// once more, and then nobody has read that one.
func TestEntities_idleOnesLapse(t *testing.T) {
	entitiesTest(t, 10, func(t *testing.T, e *Entities, svc *service) {
		for n := range 5 {
			readAs(t, e, fmt.Sprint("entity-", n))
		}
		if count, newest := e.Tokens(); count != 5 || newest == nil {
			t.Fatalf("%d tokens, the newest is %v", count, newest)
		}
		time.Sleep(48 * time.Hour)
		synctest.Wait()
		if count, newest := e.Tokens(); count != 0 || newest != nil {
			t.Errorf("%d tokens, the newest is %v", count, newest)
		}
		if svc.count() != 10 {
			t.Errorf("%d exchanges", svc.count())
		}
	})
}

func TestEntities_dropIsOfTheTokenAlone(t *testing.T) {
	entitiesTest(t, 10, func(t *testing.T, e *Entities, _ *service) {
		alice, bob := readAs(t, e, "alice"), readAs(t, e, "bob")
		e.Drop(alice)
		if readAs(t, e, "alice") == alice {
			t.Error("the token is shared on")
		}
		if readAs(t, e, "bob") != bob {
			t.Error("another entity's token was dropped")
		}
	})
}

func TestEntities_dropIsOfAllWhoHaveTheToken(t *testing.T) {
	entitiesTest(t, 10, func(t *testing.T, e *Entities, svc *service) {
		svc.repeats = true
		alice, bob := readAs(t, e, "alice"), readAs(t, e, "bob")
		if alice != bob {
			t.Fatal("the service gave two tokens")
		}
		e.Drop(alice)
		if count, _ := e.Tokens(); count != 0 {
			t.Errorf("%d entities have the token", count)
		}
	})
}

func TestEntities_replaceGivesOneEntityItsToken(t *testing.T) {
	entitiesTest(t, 10, func(t *testing.T, e *Entities, svc *service) {
		if err := e.Replace(t.Context(), "alice"); err != nil {
			t.Fatal(err)
		}
		_, newest := e.Tokens()
		if alice := readAs(t, e, "alice"); alice != newest.ID || svc.count() != 1 {
			t.Errorf("read %s after %d exchanges", alice, svc.count())
		}
		if readAs(t, e, "bob") == newest.ID {
			t.Error("another entity has the token")
		}
	})
}

func TestEntities_takeOverKeepsTokensAndOrder(t *testing.T) {
	entitiesTest(t, 3, func(t *testing.T, e *Entities, svc *service) {
		before := NewEntities(Options{Exchanger: ExchangeFunc(svc.exchange)}, 3)
		ids := make(map[string]string)
		for _, entity := range []string{"alice", "bob", "carol"} {
			ids[entity] = readAs(t, before, entity)
		}
		if err := e.Replace(t.Context(), "bob"); err != nil {
			t.Fatal(err)
		}
		e.TakeOver(before)
		before.Close()
		exchanges := svc.count()
		readAs(t, e, "dave") // There is no room left, and Alice has not read for longest.
		if _, known := e.byName["alice"]; known || len(e.byName) != 3 {
			t.Errorf("there are %d entities, and the one that read first is among them: %t", len(e.byName), known)
		}
		if readAs(t, e, "carol") != ids["carol"] {
			t.Error("an entity has lost its token")
		}
		if readAs(t, e, "bob") == ids["bob"] {
			t.Error("the older token took the place of the newer one")
		}
		if svc.count() != exchanges+1 {
			t.Errorf("%d further exchanges", svc.count()-exchanges)
		}
	})
}

// TestEntities_takeOverKeepsTheLimitOfDrops revokes again after a take-over, and sooner
// than a tenth of a token's life after the last time.
func TestEntities_takeOverKeepsTheLimitOfDrops(t *testing.T) {
	entitiesTest(t, 3, func(t *testing.T, e *Entities, svc *service) {
		before := NewEntities(Options{Exchanger: ExchangeFunc(svc.exchange)}, 3)
		before.Drop(readAs(t, before, "alice"))
		id := readAs(t, before, "alice")
		e.TakeOver(before)
		before.Close()
		e.Drop(id)
		if readAs(t, e, "alice") != id {
			t.Error("a second token was dropped at once")
		}
	})
}

// TestEntities_evictionMeetsReaders reads as more entities than there is room for, at
// once. Each reader gets a token, and none that another entity has.
func TestEntities_evictionMeetsReaders(t *testing.T) {
	svc := &service{life: time.Hour}
	released := make(chan struct{})
	e := NewEntities(Options{Exchanger: ExchangeFunc(svc.exchange), Release: func() { close(released) }}, 3)
	var holders sync.Map
	var readers sync.WaitGroup
	for reader := range 16 {
		readers.Go(func() {
			for n := range 200 {
				entity := fmt.Sprint("entity-", (n*(reader+1))%7)
				id := readAs(t, e, entity)
				if holder, known := holders.LoadOrStore(id, entity); known && holder != entity {
					t.Errorf("%s got the token of %s", entity, holder)
				}
				if n%20 == 0 {
					e.Drop(id)
				}
			}
		})
	}
	readers.Wait()
	if len(e.byName) > 3 || e.recent.Len() != len(e.byName) || len(e.leaving) != 0 {
		t.Errorf("%d entities, %d in order, %d evicted", len(e.byName), e.recent.Len(), len(e.leaving))
	}
	e.Close()
	select {
	case <-released:
	case <-time.After(10 * time.Second):
		t.Error("what the sources hold was not released")
	}
}

func BenchmarkEntities_readOfAFreshToken(b *testing.B) {
	svc := &service{life: time.Hour}
	e := NewEntities(Options{Exchanger: ExchangeFunc(svc.exchange)}, 1000)
	defer e.Close()
	ctx := context.Background()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := e.Read(ctx, "alice", 0); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
