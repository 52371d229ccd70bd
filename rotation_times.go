// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"time"

	vaultrotation "github.com/hashicorp/vault/sdk/rotation"
)

const (
	minRotationPeriod = time.Hour
	maxRotationPeriod = 366 * 24 * time.Hour
	// maxRotationWindow is the longest rotation_window, as long as the longest period.
	maxRotationWindow = maxRotationPeriod
	// maxScheduleLength is more than any schedule needs.
	maxScheduleLength = 256
	// clockStep is how far a clock may be set back without that counting for the schedule.
	clockStep = time.Hour
)

// automatedRotation says when a key is replaced without anybody asking for it.
type automatedRotation struct {
	RotationPeriod time.Duration `json:"rotation_period,omitempty"`
	// RotationSchedule is five cron fields, in UTC, in place of the period.
	RotationSchedule string `json:"rotation_schedule,omitempty"`
	// RotationWindow is how long after a scheduled time a rotation may begin, 0 for at any
	// time.
	RotationWindow time.Duration `json:"rotation_window,omitempty"`
	// DisableAutomatedRotation keeps the others without acting on them.
	DisableAutomatedRotation bool `json:"disable_automated_rotation,omitempty"`
}

// cronSchedule is a rotation_schedule that was parsed.
type cronSchedule struct {
	parsed *vaultrotation.RotationSchedule
}

// parseSchedule reads a schedule as Vault does. Its errors do not quote it.
func parseSchedule(text string) (cronSchedule, error) {
	invalid := errors.New(`must be five cron fields in UTC (minute, hour, day of month, month, day of week), such as "0 3 * * 0"`)
	// Vault's parser reads a time zone and has no regard for it, or panics.
	if len(text) > maxScheduleLength || strings.Contains(text, "=") {
		return cronSchedule{}, invalid
	}
	cron, err := (&vaultrotation.DefaultSchedule{}).Parse(text)
	if err != nil {
		return cronSchedule{}, invalid
	}
	parsed := cronSchedule{&vaultrotation.RotationSchedule{RotationSchedule: text, Schedule: cron}}
	if parsed.after(leapYear()).IsZero() {
		return cronSchedule{}, errors.New("never falls due: there is no such date")
	}
	return parsed, nil
}

// leapYear begins a year that has all dates.
func leapYear() time.Time { return time.Date(2000, time.January, 1, 0, 0, 0, 0, time.UTC) }

// after is the first scheduled time after a moment, or zero if none is in sight.
func (s cronSchedule) after(at time.Time) time.Time {
	return (&vaultrotation.DefaultSchedule{}).NextRotationTimeFromInput(s.parsed, at.UTC())
}

// smallestGap is the shortest time between two scheduled times of a year. After a day's
// minutes they repeat.
func (s cronSchedule) smallestGap() time.Duration {
	smallest := time.Duration(math.MaxInt64)
	first := s.after(leapYear())
	for at, n := first, 0; n <= 24*60 && at.Sub(first) <= maxRotationPeriod; n++ {
		next := s.after(at)
		if next.IsZero() {
			break
		}
		smallest = min(smallest, next.Sub(at))
		at = next
	}
	return smallest
}

// rotatesAutomatically says whether the config has a period or a schedule, be it disabled.
func (c *config) rotatesAutomatically() bool {
	return c.RotationPeriod > 0 || c.RotationSchedule != ""
}

// validateRotation checks the rotation's fields against each other. What excludes what is as
// Vault has it, in what is stored and the write together.
func (c *config) validateRotation() error {
	if c.RotationPeriod > 0 && c.RotationSchedule != "" {
		return fieldError("rotation_schedule", `excludes rotation_period: set rotation_period=0 or rotation_schedule="" in the same write`)
	}
	if c.RotationWindow > 0 && c.RotationSchedule == "" {
		return fieldError("rotation_window", "needs a rotation_schedule: set that too, or rotation_window=0")
	}
	if c.rotatesAutomatically() && !c.Renew {
		return fieldError("renew", `must be true for a rotation: with renew=false Vault makes none of the config's keys; set renew=true, or rotation_period=0 and rotation_schedule=""`)
	}
	if c.RotationPeriod > 0 && c.RotationGracePeriod >= c.RotationPeriod/2 {
		return fieldError("rotation_grace_period", "must be less than half of rotation_period")
	}
	if c.RotationSchedule == "" {
		return nil
	}
	schedule, err := parseSchedule(c.RotationSchedule)
	if err != nil {
		return fieldError("rotation_schedule", err.Error())
	}
	if gap := schedule.smallestGap(); c.RotationGracePeriod >= gap/2 {
		return fieldError("rotation_grace_period", "must be less than half of the shortest time between two times of rotation_schedule, which is "+gap.String())
	}
	return nil
}

// scheduleNext sets when the key is rotated next, as of now.
func (c *config) scheduleNext(now time.Time) {
	c.NextRotation, c.RotationUntil = time.Time{}, time.Time{}
	switch {
	case c.DisableAutomatedRotation || !c.rotatesAutomatically():
	case c.RotationPeriod > 0:
		c.NextRotation = afterPeriod(now, c.RotationPeriod)
	default:
		c.NextRotation = c.scheduledAfter(now)
		c.openWindow()
	}
}

// openWindow has a rotation that was scheduled begin inside of its window, if it has one.
func (c *config) openWindow() {
	if c.RotationWindow == 0 || c.NextRotation.IsZero() {
		return
	}
	c.RotationUntil = c.NextRotation.Add(c.RotationWindow)
	c.NextRotation = c.NextRotation.Add(c.spread(c.NextRotation))
}

// afterPeriod is up to a tenth of the period early, so that configs which were
// written together are not rotated together.
func afterPeriod(now time.Time, period time.Duration) time.Time {
	return now.Add(period - rand.N(period/10)).Truncate(time.Second)
}

// spread is a random time into the window of a scheduled time, so that configs with one
// schedule are not rotated together. The second half is left to what is tried again, and
// to the next scheduled time.
func (c *config) spread(scheduled time.Time) time.Duration {
	longest := c.RotationWindow
	if next := c.scheduledAfter(scheduled); !next.IsZero() {
		longest = min(longest, next.Sub(scheduled))
	}
	return rand.N(longest / 2).Truncate(time.Second)
}

// scheduledAfter is the first time of rotation_schedule after a moment, or zero.
func (c *config) scheduledAfter(at time.Time) time.Time {
	schedule, err := parseSchedule(c.RotationSchedule)
	if err != nil {
		return time.Time{} // No write stores such a one.
	}
	return schedule.after(at)
}

// rotationDue is when the key is to be rotated next, as of now, and until when that may
// begin. due is zero if the key is not rotated automatically, and until is zero without
// a window. A key that ends before is rotated before, whatever its window.
func (c *config) rotationDue(now time.Time) (due, until time.Time) {
	due, until = c.scheduledDue(now)
	if by := c.replaceKeyBy(); !by.IsZero() && (due.IsZero() || by.Before(due)) {
		return by, time.Time{}
	}
	return due, until
}

// scheduledDue is rotationDue for a key without an end. What lies further ahead than the settings put it was set by a clock that has
// been set back since, and is due, in the first window that has not ended if there are
// windows. There is where a window goes, too, that was missed.
func (c *config) scheduledDue(now time.Time) (due, until time.Time) {
	ahead := c.isTooFarAhead(now)
	if c.RotationWindow == 0 {
		if ahead {
			return now, time.Time{}
		}
		return c.NextRotation, time.Time{}
	}
	if c.NextRotation.IsZero() || !ahead && now.Before(c.RotationUntil) {
		return c.NextRotation, c.RotationUntil
	}
	open := c.scheduledAfter(now.Add(-c.RotationWindow))
	if open.IsZero() {
		return time.Time{}, time.Time{}
	}
	later := open.Add(c.RotationWindow).Sub(c.RotationUntil)
	return c.NextRotation.Add(later), c.RotationUntil.Add(later)
}

// isTooFarAhead says whether no clock that agrees with now can have set NextRotation.
func (c *config) isTooFarAhead(now time.Time) bool {
	if c.RotationSchedule == "" {
		return c.NextRotation.After(now.Add(c.RotationPeriod))
	}
	scheduled := c.scheduledAfter(now.Add(clockStep))
	return !scheduled.IsZero() && c.NextRotation.After(scheduled.Add(c.RotationWindow))
}
