// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package schedule

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// workshop runs jobs as a test says, and notes what ran.
type workshop struct {
	*Queue
	t *testing.T
	// work is what a job does; its name begins with its group's and a slash.
	work func(ctx context.Context, name string) (time.Time, error)

	mu sync.Mutex
	// starts are when each job was started, running those that run now, by name, and
	// most the most that ran at a time, by group and, for all, by "".
	starts  map[string][]time.Time
	running map[string]int
	most    map[string]int
}

// outage is the error of a group that can't be served.
type outage struct{ retryAfter time.Duration }

func (outage) Error() string { return "out of service" }

func groupOf(name string) string {
	group, _, _ := strings.Cut(name, "/")
	return group
}

// inWorkshop runs a test in fake time, whose jobs do work.
func inWorkshop(t *testing.T, work func(ctx context.Context, name string) (time.Time, error), test func(*workshop)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &workshop{t: t, work: work, starts: make(map[string][]time.Time), running: make(map[string]int), most: make(map[string]int)}
		w.Queue = New(Options{Run: w.run, Unavailable: func(_ string, err error) (time.Duration, bool) {
			var out outage
			unavailable := errors.As(err, &out)
			return out.retryAfter, unavailable
		}})
		defer w.Close()
		test(w)
	})
}

func (w *workshop) run(ctx context.Context, name string) (time.Time, error) {
	w.mu.Lock()
	w.starts[name] = append(w.starts[name], time.Now())
	for _, n := range []string{name, groupOf(name), ""} {
		w.running[n]++
		w.most[n] = max(w.most[n], w.running[n])
	}
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, n := range []string{name, groupOf(name), ""} {
			w.running[n]--
		}
	}()
	return w.work(ctx, name)
}

func (w *workshop) upsert(name string, in time.Duration) {
	w.Upsert(name, groupOf(name), time.Now().Add(in))
}

// ran returns how often a job was started.
func (w *workshop) ran(name string) int {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.starts[name])
}

// after returns how long after a time each of a job's runs was started.
func (w *workshop) after(start time.Time, name string) []time.Duration {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	var after []time.Duration
	for _, at := range w.starts[name] {
		after = append(after, at.Sub(start))
	}
	return after
}

// woken returns how often the queue's timer has fired.
func (w *workshop) woken() int {
	synctest.Wait()
	w.Queue.mu.Lock()
	defer w.Queue.mu.Unlock()
	return w.wakeUps
}

// done is work that takes a time and is never due again.
func done(duration time.Duration) func(context.Context, string) (time.Time, error) {
	return func(context.Context, string) (time.Time, error) {
		time.Sleep(duration)
		return time.Time{}, nil
	}
}

func TestQueue_tenThousandJobsDueAtOnceAreAllDone(t *testing.T) {
	const jobs, duration = 10_000, 4 * time.Second
	inWorkshop(t, done(duration), func(w *workshop) {
		for n := range jobs {
			w.upsert(fmt.Sprint("one/", n), time.Hour)
		}
		time.Sleep(time.Hour + (jobs/slotsPerGroup+1)*duration)
		for n := range jobs {
			if name := fmt.Sprint("one/", n); w.ran(name) != 1 {
				t.Fatalf("%s ran %d times", name, w.ran(name))
			}
		}
		if w.most["one"] != slotsPerGroup {
			t.Errorf("%d ran at a time", w.most["one"])
		}
	})
}

func TestQueue_groupsShareTheSlots(t *testing.T) {
	inWorkshop(t, done(time.Minute), func(w *workshop) {
		for n := range 100 {
			w.upsert(fmt.Sprint([]string{"one/", "two/", "three/"}[n%3], n), time.Hour)
		}
		time.Sleep(3 * time.Hour)
		if synctest.Wait(); w.most[""] != slots || len(w.starts) != 100 {
			t.Errorf("%d ran at a time, and %d in all", w.most[""], len(w.starts))
		}
	})
}

func TestQueue_hangingJobsLeaveSlotsToOtherGroups(t *testing.T) {
	work := func(ctx context.Context, name string) (time.Time, error) {
		if groupOf(name) == "hanging" {
			<-ctx.Done()
		}
		return time.Time{}, nil
	}
	inWorkshop(t, work, func(w *workshop) {
		for n := range 20 {
			w.upsert(fmt.Sprint("hanging/", n), 0)
		}
		for n := range 100 {
			w.upsert(fmt.Sprint("well/", n), time.Minute)
		}
		time.Sleep(time.Minute)
		for n := range 100 {
			if name := fmt.Sprint("well/", n); w.ran(name) != 1 {
				t.Errorf("%s did not run", name)
			}
		}
	})
}

func TestQueue_failedGroupBacksOffAsAWhole(t *testing.T) {
	var failing atomic.Bool
	work := func(_ context.Context, name string) (time.Time, error) {
		time.Sleep(4 * time.Second)
		if failing.Load() && groupOf(name) == "bad" {
			return time.Time{}, fmt.Errorf("asking: %w", outage{})
		}
		return time.Time{}, nil
	}
	inWorkshop(t, work, func(w *workshop) {
		failing.Store(true)
		for _, group := range []string{"bad/", "well/"} {
			for n := range 1000 {
				w.upsert(fmt.Sprint(group, n), 0)
			}
		}
		time.Sleep(5 * time.Second)
		first := countRuns(w, "bad")
		w.mu.Lock()
		w.most["bad"] = 0
		w.mu.Unlock()
		time.Sleep(time.Hour)
		// At 10, 20, 40 ... seconds, and then every ten minutes.
		if probes := countRuns(w, "bad") - first; first != slotsPerGroup || probes < 8 || probes > 12 || w.most["bad"] != 1 {
			t.Errorf("%d runs, then %d, %d at a time", first, probes, w.most["bad"])
		}
		if got := countRuns(w, "well"); got != 1000 {
			t.Errorf("%d jobs of the other group were done", got)
		}
		failing.Store(false)
		time.Sleep(maxGroupRetry + 1000/slotsPerGroup*5*time.Second)
		for n := range 1000 {
			if name := fmt.Sprint("bad/", n); w.ran(name) == 0 {
				t.Errorf("%s did not run when all was well", name)
			}
		}
		if w.most["bad"] != slotsPerGroup {
			t.Errorf("%d ran at a time when all was well", w.most["bad"])
		}
	})
}

func countRuns(w *workshop, group string) int {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	count := 0
	for name, starts := range w.starts {
		if groupOf(name) == group {
			count += len(starts)
		}
	}
	return count
}

func TestQueue_groupBacksOffAsItsServiceAsks(t *testing.T) {
	var asked bool
	work := func(_ context.Context, name string) (time.Time, error) {
		if name == "busy/0" && !asked {
			asked = true
			return time.Time{}, outage{retryAfter: 40 * time.Minute}
		}
		return time.Time{}, nil
	}
	inWorkshop(t, work, func(w *workshop) {
		start := time.Now()
		w.upsert("busy/0", 0)
		synctest.Wait()
		for n := range 30 {
			w.upsert(fmt.Sprint("busy/", n+1), time.Duration(n)*time.Minute)
		}
		time.Sleep(41 * time.Minute)
		for n := range 30 {
			if got := w.after(start, fmt.Sprint("busy/", n+1)); len(got) != 1 || got[0] != 40*time.Minute {
				t.Errorf("job %d ran after %v", n+1, got)
			}
		}
	})
}

func TestQueue_lateRetryAfterCountsToo(t *testing.T) {
	work := func(_ context.Context, name string) (time.Time, error) {
		switch name {
		case "busy/first":
			return time.Time{}, outage{}
		case "busy/second":
			time.Sleep(time.Second)
			return time.Time{}, outage{retryAfter: time.Hour}
		}
		return time.Time{}, nil
	}
	inWorkshop(t, work, func(w *workshop) {
		start := time.Now()
		w.upsert("busy/second", 0)
		w.upsert("busy/first", 0)
		w.upsert("busy/third", 2*time.Second)
		time.Sleep(2 * time.Hour)
		// The one that failed first is due again before.
		if got := w.after(start, "busy/third"); len(got) != 1 || got[0] < time.Hour {
			t.Errorf("it ran after %v", got)
		}
	})
}

func TestQueue_whatBeganBeforeAFailureDoesNotEndIt(t *testing.T) {
	work := func(_ context.Context, name string) (time.Time, error) {
		if name == "one/failing" {
			return time.Time{}, outage{}
		}
		time.Sleep(5 * time.Second)
		return time.Time{}, nil
	}
	inWorkshop(t, work, func(w *workshop) {
		start := time.Now()
		w.upsert("one/slow", 0)
		w.upsert("one/failing", 0)
		w.upsert("one/other", 7*time.Second)
		time.Sleep(time.Minute)
		if got := w.after(start, "one/other"); !slices.Equal(got, []time.Duration{firstGroupRetry}) {
			t.Errorf("it ran after %v", got)
		}
	})
}

func TestQueue_oneJobsRefusalIsNotItsGroups(t *testing.T) {
	work := func(_ context.Context, name string) (time.Time, error) {
		if name == "one/refused" {
			return time.Time{}, errors.New("refused")
		}
		return time.Time{}, nil
	}
	inWorkshop(t, work, func(w *workshop) {
		w.upsert("one/refused", 0)
		synctest.Wait()
		w.upsert("one/other", 0)
		if w.ran("one/other") != 1 {
			t.Error("the other job waits")
		}
	})
}

func TestQueue_aJobsFailuresBackItOff(t *testing.T) {
	var fails atomic.Bool
	work := func(context.Context, string) (time.Time, error) {
		if fails.Load() {
			return time.Time{}, errors.New("no")
		}
		return time.Now().Add(24 * time.Hour), nil
	}
	minutes := func(of ...int) (durations []time.Duration) {
		at := 0
		for _, m := range of {
			at += m
			durations = append(durations, time.Duration(at)*time.Minute)
		}
		return durations
	}
	inWorkshop(t, work, func(w *workshop) {
		start := time.Now()
		fails.Store(true)
		w.upsert("one/job", 0)
		time.Sleep(302 * time.Minute)
		want := minutes(0, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60)
		if got := w.after(start, "one/job"); !slices.Equal(got, want[:len(got)]) || len(got) < 10 {
			t.Errorf("it ran after %v", got)
		}
		fails.Store(false)
		time.Sleep(time.Hour) // It succeeds, and is due a day later.
		fails.Store(true)
		runs := w.ran("one/job")
		time.Sleep(24 * time.Hour)
		again := w.after(start, "one/job")[runs:]
		if len(again) < 3 || again[1]-again[0] != time.Minute {
			t.Errorf("after a success it ran after %v", again)
		}
		time.Sleep(10 * time.Hour)
		runs = w.ran("one/job")
		w.upsert("one/job", 0)
		time.Sleep(time.Minute)
		if got := w.ran("one/job") - runs; got != 2 {
			t.Errorf("after it was upserted it ran %d times in a minute", got)
		}
	})
}

func TestQueue_aFailedJobMaySayWhenToTryAgain(t *testing.T) {
	work := func(context.Context, string) (time.Time, error) {
		return time.Now().Add(3 * time.Minute), errors.New("no")
	}
	inWorkshop(t, work, func(w *workshop) {
		start := time.Now()
		w.upsert("one/job", 0)
		time.Sleep(7 * time.Minute)
		if got := w.after(start, "one/job"); !slices.Equal(got, []time.Duration{0, 3 * time.Minute, 6 * time.Minute}) {
			t.Errorf("it ran after %v", got)
		}
	})
}

func TestQueue_sleepsWhileNothingIsDue(t *testing.T) {
	work := func(context.Context, string) (time.Time, error) { return time.Now().Add(60 * 24 * time.Hour), nil }
	inWorkshop(t, work, func(w *workshop) {
		time.Sleep(24 * time.Hour)
		if got := w.woken(); got != 0 {
			t.Errorf("it woke up %d times with no job", got)
		}
		for n := range 100 {
			w.upsert(fmt.Sprint("one/", n), 30*24*time.Hour)
		}
		time.Sleep(29 * 24 * time.Hour)
		if got := w.woken(); got != 29*24*60 {
			t.Errorf("it looked at the clock %d times, not each minute", got)
		}
		time.Sleep(2 * 24 * time.Hour)
		if countRuns(w, "one") != 100 || w.woken() != 31*24*60 {
			t.Errorf("%d runs in %d wake-ups", countRuns(w, "one"), w.woken())
		}
	})
}

func TestQueue_sleepsWhileAGroupBacksOff(t *testing.T) {
	work := func(context.Context, string) (time.Time, error) { return time.Time{}, outage{retryAfter: time.Hour} }
	inWorkshop(t, work, func(w *workshop) {
		for n := range 100 {
			w.upsert(fmt.Sprint("one/", n), 0)
		}
		time.Sleep(59 * time.Minute)
		if got := w.woken(); got > 59 {
			t.Errorf("it woke up %d times for nothing", got)
		}
	})
}

// TestQueue_clearsGroupsWithoutJobs has many be backed off from when their last job goes.
func TestQueue_clearsGroupsWithoutJobs(t *testing.T) {
	work := func(context.Context, string) (time.Time, error) { return time.Time{}, outage{} }
	inWorkshop(t, work, func(w *workshop) {
		for n := range 100 {
			name := fmt.Sprint(n, "/job")
			w.upsert(name, 0)
			synctest.Wait()
			w.Queue.Remove(name)
		}
		time.Sleep(maxGroupRetry)
		w.upsert("last/job", time.Hour)
		w.Queue.mu.Lock()
		defer w.Queue.mu.Unlock()
		if got := len(w.Queue.groups); got != 1 {
			t.Errorf("%d groups are kept", got)
		}
	})
}

func TestQueue_aJobUpsertedWhileItRunsRunsAgain(t *testing.T) {
	const never = -1
	for name, c := range map[string]struct {
		upserted, returned time.Duration
		want               []time.Duration
	}{
		"at once":                         {0, never, []time.Duration{0, 11 * time.Second}},
		"when it is due":                  {time.Minute, never, []time.Duration{0, 65 * time.Second}},
		"when it says so":                 {time.Hour, time.Minute, []time.Duration{0, 70 * time.Second}},
		"when it was upserted for before": {time.Minute, time.Hour, []time.Duration{0, 65 * time.Second}},
	} {
		t.Run(name, func(t *testing.T) {
			first := true
			work := func(context.Context, string) (time.Time, error) {
				time.Sleep(10 * time.Second)
				if !first || c.returned == never {
					return time.Time{}, nil
				}
				first = false
				return time.Now().Add(c.returned), nil
			}
			inWorkshop(t, work, func(w *workshop) {
				start := time.Now()
				w.upsert("one/job", 0)
				time.Sleep(5 * time.Second)
				w.upsert("one/job", c.upserted)
				time.Sleep(10 * time.Minute)
				if got := w.after(start, "one/job"); !slices.Equal(got, c.want) || w.most["one/job"] != 1 {
					t.Errorf("it ran after %v, %d at a time", got, w.most["one/job"])
				}
			})
		})
	}
}

func TestQueue_upsertReplacesWhenAJobIsDue(t *testing.T) {
	inWorkshop(t, done(0), func(w *workshop) {
		start := time.Now()
		for _, in := range []time.Duration{time.Minute, time.Hour} {
			w.upsert("one/later", in)
			w.upsert("one/sooner", time.Hour+time.Minute-in)
			w.upsert("one/never", in)
		}
		w.Upsert("one/never", "one", time.Time{})
		w.Upsert("one/moved", "one", start.Add(time.Minute))
		w.Upsert("one/moved", "two", start.Add(time.Minute))
		time.Sleep(2 * time.Hour)
		for name, want := range map[string][]time.Duration{
			"one/later": {time.Hour}, "one/sooner": {time.Minute}, "one/never": nil, "one/moved": {time.Minute},
		} {
			if got := w.after(start, name); !slices.Equal(got, want) {
				t.Errorf("%s ran after %v", name, got)
			}
		}
		if len(w.jobs) != 0 || len(w.groups) != 0 {
			t.Errorf("%d jobs and %d groups are left", len(w.jobs), len(w.groups))
		}
	})
}

func TestQueue_aRemovedJobDoesNotRunAgain(t *testing.T) {
	work := func(context.Context, string) (time.Time, error) {
		time.Sleep(10 * time.Second)
		return time.Now().Add(time.Minute), nil
	}
	inWorkshop(t, work, func(w *workshop) {
		for _, name := range []string{"one/running", "one/back"} {
			w.upsert(name, 0)
		}
		w.upsert("one/waiting", time.Minute)
		time.Sleep(5 * time.Second)
		for _, name := range []string{"one/running", "one/waiting", "one/back", "one/unknown"} {
			w.Remove(name)
		}
		w.upsert("one/back", 0)
		time.Sleep(30 * time.Second)
		if w.ran("one/running") != 1 || w.ran("one/waiting") != 0 || w.ran("one/back") != 2 || w.most["one/back"] != 1 {
			t.Errorf("they ran: %v", w.starts)
		}
		w.Remove("one/back")
		if time.Sleep(time.Hour); w.ran("one/back") != 2 || len(w.jobs) != 0 || len(w.groups) != 0 {
			t.Errorf("it ran %d times, and %d jobs and %d groups are left", w.ran("one/back"), len(w.jobs), len(w.groups))
		}
	})
}

func TestQueue_aJobThatIsAlwaysDueDoesNotSpin(t *testing.T) {
	var w *workshop
	work := func(_ context.Context, name string) (time.Time, error) {
		w.upsert(name, 0) // As a job does that is told of its own change.
		return time.Now().Add(-time.Hour), nil
	}
	inWorkshop(t, work, func(made *workshop) {
		w = made
		w.upsert("one/job", 0)
		time.Sleep(time.Minute)
		if got := w.ran("one/job"); got > 61 {
			t.Errorf("it ran %d times in a minute", got)
		}
	})
}

func TestQueue_aPanicIsAFailure(t *testing.T) {
	work := func(_ context.Context, name string) (time.Time, error) {
		if name == "one/bad" {
			panic("on purpose")
		}
		return time.Time{}, nil
	}
	inWorkshop(t, work, func(w *workshop) {
		var told []string
		w.options.Panicked = func(name string, value any) { told = append(told, fmt.Sprint(name, ": ", value)) }
		start := time.Now()
		w.upsert("one/bad", 0)
		synctest.Wait()
		w.upsert("one/other", 0)
		time.Sleep(4 * time.Minute)
		if got := w.after(start, "one/bad"); !slices.Equal(got, []time.Duration{0, time.Minute, 3 * time.Minute}) {
			t.Errorf("it ran after %v", got)
		}
		if len(told) != 3 || told[0] != "one/bad: on purpose" || w.ran("one/other") != 1 || w.running[""] != 0 {
			t.Errorf("told %q", told)
		}
	})
}

func TestQueue_closeEndsWhatRuns(t *testing.T) {
	work := func(ctx context.Context, name string) (time.Time, error) {
		if name == "one/stubborn" {
			time.Sleep(time.Hour)
			return time.Now(), nil
		}
		<-ctx.Done()
		time.Sleep(time.Second) // To put things in order.
		return time.Now(), ctx.Err()
	}
	for name, c := range map[string]struct {
		jobs     []string
		duration time.Duration
	}{
		"nothing runs":        {nil, 0},
		"a job ends in order": {[]string{"one/orderly"}, time.Second},
		"a job does not":      {[]string{"one/orderly", "one/stubborn"}, closeWait},
	} {
		t.Run(name, func(t *testing.T) {
			inWorkshop(t, work, func(w *workshop) {
				for _, name := range c.jobs {
					w.upsert(name, 0)
				}
				w.upsert("one/later", time.Minute)
				synctest.Wait()
				start := time.Now()
				w.Close()
				w.Close()
				if got := time.Since(start); got < c.duration || got > 2*c.duration {
					t.Errorf("it took %s", got)
				}
				w.upsert("one/late", 0)
				w.Remove("one/later")
				time.Sleep(2 * time.Hour)
				if len(w.starts) != len(c.jobs) || countRuns(w, "one") != len(c.jobs) {
					t.Errorf("they ran: %v", w.starts)
				}
			})
		})
	}
}

// TestQueue_jobsRunOnceAtATime has jobs upserted and removed at random
// while they run, fail and hang.
func TestQueue_jobsRunOnceAtATime(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			var mu sync.Mutex // Of random.
			upTo := func(n int) int {
				mu.Lock()
				defer mu.Unlock()
				return random.IntN(n)
			}
			var calm atomic.Bool
			work := func(context.Context, string) (time.Time, error) {
				time.Sleep(time.Duration(upTo(30)) * time.Second)
				switch chance := upTo(10); {
				case calm.Load() || chance > 4:
					return time.Time{}, nil
				case chance == 0:
					panic("on purpose")
				case chance == 1:
					return time.Time{}, outage{retryAfter: time.Duration(upTo(100)) * time.Second}
				default:
					return time.Now().Add(time.Duration(upTo(300)-100) * time.Second), errors.New("no")
				}
			}
			inWorkshop(t, work, func(w *workshop) {
				name := func() string { return fmt.Sprint([]string{"one/", "two/", "three/"}[upTo(3)], upTo(40)) }
				for range 2000 {
					if upTo(4) == 0 {
						w.Remove(name())
					} else {
						w.upsert(name(), time.Duration(upTo(200)-100)*time.Second)
					}
					time.Sleep(time.Duration(upTo(3000)) * time.Millisecond)
				}
				calm.Store(true)
				time.Sleep(3 * time.Hour)
				synctest.Wait()
				for name, most := range w.most {
					if limit := map[bool]int{true: 1, false: slotsPerGroup}[strings.Contains(name, "/")]; name != "" && most > limit || most > slots {
						t.Errorf("%d of %q ran at a time", most, name)
					}
				}
				if len(w.jobs) != 0 || w.running[""] != 0 || w.Queue.running != 0 {
					t.Errorf("%d jobs are left, and %d run", len(w.jobs), w.running[""])
				}
			})
		})
	}
}
