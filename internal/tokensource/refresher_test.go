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

// TestRefresher_refreshesEachAtItsTime of many sources with tokens of random lives, but for those that
// are closed before.
func TestRefresher_refreshesEachAtItsTime(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 9))
			refresher := &Refresher{}
			type refreshing struct {
				*Source
				svc *service
				at  time.Time
			}
			var left []refreshing
			for range 50 {
				svc := &service{life: time.Minute + time.Duration(random.Int64N(int64(time.Hour)))}
				s := New(Options{Exchanger: ExchangeFunc(svc.exchange), Refresher: refresher})
				defer s.Close()
				left = append(left, refreshing{s, svc, mustRead(t, s).refreshAt()})
			}
			requireExchanges := func(of refreshing, want int) {
				t.Helper()
				synctest.Wait()
				if got := of.svc.count(); got != want {
					t.Fatalf("seed %d: %d exchanges, not %d", seed, got, want)
				}
			}
			slices.SortFunc(left, func(a, b refreshing) int { return a.at.Compare(b.at) })
			var closed []refreshing
			for len(left) > 0 {
				if i := random.IntN(3 * len(left)); i < len(left) {
					left[i].Close()
					closed = append(closed, left[i])
					left = slices.Delete(left, i, i+1)
					continue
				}
				first := left[0]
				left = left[1:]
				time.Sleep(time.Until(first.at) - time.Nanosecond)
				requireExchanges(first, 1)
				time.Sleep(time.Nanosecond)
				requireExchanges(first, 2)
			}
			for _, s := range closed {
				requireExchanges(s, 1)
			}
			if got := len(refresher.waiting); got != 0 {
				t.Errorf("seed %d: %d wait though nobody has read their tokens", seed, got)
			}
		})
	}
}
