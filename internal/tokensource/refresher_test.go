// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package tokensource

import (
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestRefresher_refreshesEachAtItsTime of many sources with tokens of random lives, some of which
// are closed before, and leaves out those that nobody has read since.
func TestRefresher_refreshesEachAtItsTime(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 9))
			refresher := &Refresher{}
			type refreshing struct {
				*Source
				svc  *service
				next time.Time
			}
			var all []*refreshing
			for range 50 {
				svc := &service{life: time.Minute + time.Duration(random.Int64N(int64(time.Hour)))}
				s := &refreshing{Source: New(Options{Exchange: svc.exchange, Refresher: refresher}), svc: svc}
				defer s.Close()
				s.next = mustRead(t, s.Source).refreshAt()
				all = append(all, s)
			}
			for len(all) > 0 {
				first := slices.MinFunc(all, func(a, b *refreshing) int { return a.next.Compare(b.next) })
				time.Sleep(time.Until(first.next) - time.Nanosecond)
				synctest.Wait()
				if got := first.svc.count(); got != 1 {
					t.Fatalf("seed %d: %d exchanges before the first refresh", seed, got)
				}
				time.Sleep(time.Nanosecond)
				synctest.Wait()
				if got := first.svc.count(); got != 2 {
					t.Fatalf("seed %d: %d exchanges after the first refresh", seed, got)
				}
				all = slices.DeleteFunc(all, func(s *refreshing) bool { return s == first })
				if len(all) > 0 && random.IntN(3) == 0 {
					closed := random.IntN(len(all))
					all[closed].Close()
					all = slices.Delete(all, closed, closed+1)
				}
			}
			if got := len(refresher.waiting); got != 0 {
				t.Errorf("seed %d: %d wait though nobody has read their tokens", seed, got)
			}
			time.Sleep(24 * time.Hour)
		})
	}
}
