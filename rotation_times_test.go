// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/helper/automatedrotationutil"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/rotation"
)

// TestRotationFields_areVaults holds the names and types of the rotation's fields against
// those that Vault's SDK gives to other engines. rotation_policy is Vault Enterprise's.
func TestRotationFields_areVaults(t *testing.T) {
	vaults := make(map[string]*framework.FieldSchema)
	automatedrotationutil.AddAutomatedRotationFields(vaults)
	delete(vaults, "rotation_policy")
	ours := configFields()
	for name, want := range vaults {
		if got := ours[name]; got == nil {
			t.Errorf("there is no field %s", name)
		} else if got.Type != want.Type {
			t.Errorf("%s is a %s, and Vault's a %s", name, got.Type, want.Type)
		}
	}
	for name := range ours {
		if automated := strings.HasPrefix(name, "rotation_") || strings.Contains(name, "automated"); automated && vaults[name] == nil && name != "rotation_grace_period" {
			t.Errorf("Vault has no field %s", name)
		}
	}
	info := make(map[string]any)
	(&automatedrotationutil.RotationInfoResponseParams{}).PopulateRotationInfo(info)
	answered := configResponseFields()
	for name := range info {
		if answered[name] == nil || statusResponseFields()[name] == nil {
			t.Errorf("%s is not answered", name)
		}
	}
}

func TestParseSchedule(t *testing.T) {
	for text, want := range map[string]string{
		"* * * * *":         "",
		"0 3 * * 0":         "",
		"*/5 1-3 1,15 * *":  "",
		"0 3 * JAN SUN":     "",
		"0 0 29 2 *":        "",
		"":                  "must be five cron fields",
		"daily":             "must be five cron fields",
		"@daily":            "must be five cron fields",
		"@every 1h":         "must be five cron fields",
		"0 3 * * 0 0":       "must be five cron fields",
		"60 * * * *":        "must be five cron fields",
		"*/0 * * * *":       "must be five cron fields",
		"TZ=":               "must be five cron fields",
		"TZ=UTC":            "must be five cron fields",
		"TZ=UTC 0 3 * * 0":  "must be five cron fields",
		"CRON_TZ=UTC * * *": "must be five cron fields",
		testKey:             "must be five cron fields",
		"0 0 30 2 *":        "never falls due",
		"0 3 * * " + strings.Repeat("1,", 200) + "1": "must be five cron fields",
	} {
		_, err := parseSchedule(text)
		switch {
		case want == "" && err != nil:
			t.Errorf("%q: %v", text, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%q: %v", text, err)
		case err != nil && text == testKey && strings.Contains(err.Error(), text):
			t.Error("the error quotes what it was given")
		}
	}
}

func TestCronSchedule_smallestGap(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"* * * * *":       time.Minute,
		"*/5 * * * *":     5 * time.Minute,
		"0 * * * *":       time.Hour,
		"0 3 * * *":       24 * time.Hour,
		"0 3 * * 0":       7 * 24 * time.Hour,
		"0 3 1 * *":       29 * 24 * time.Hour,
		"0 0 29 2 *":      (4*365 + 1) * 24 * time.Hour,
		"0,50 0,23 * * *": 10 * time.Minute, // From 23:50 to 0:00.
		"0,5,10,15,20,25,30,35,40,45,50,55,57 * * * *": 2 * time.Minute,
	} {
		schedule, err := parseSchedule(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := schedule.smallestGap(); got != want {
			t.Errorf("%q: %s", text, got)
		}
	}
}

// at is a time of a Thursday.
func at(clock string) time.Time {
	t, err := time.Parse(time.DateTime, "2026-11-26 "+clock)
	if err != nil {
		panic(err)
	}
	return t
}

func TestConfig_rotationDue(t *testing.T) {
	const day = 24 * time.Hour
	daily := automatedRotation{RotationSchedule: "0 3 * * *"}
	windowed := automatedRotation{RotationSchedule: "0 3 * * *", RotationWindow: time.Hour}
	for name, c := range map[string]struct {
		settings    automatedRotation
		next, until time.Time
		// keyEnds is the end of a key that lives eight days, and is replaced two days before.
		keyEnds   time.Time
		now       time.Time
		wantDue   time.Time
		wantUntil time.Time
	}{
		"never":                            {now: at("12:00:00")},
		"a key that ends, and no rotation": {keyEnds: at("12:00:00"), now: at("12:00:00")},
		"a key that ends, and a rotation that is disabled": {
			settings: automatedRotation{RotationPeriod: day, DisableAutomatedRotation: true}, keyEnds: at("12:00:00"), now: at("12:00:00"),
		},
		"a key that ends before its period": {
			settings: automatedRotation{RotationPeriod: 9 * day}, next: at("20:00:00").Add(8 * day), keyEnds: at("12:00:00").Add(2 * day), now: at("12:00:00"),
			wantDue: at("12:00:00"),
		},
		"a key that ends before its window": {
			settings: windowed, next: at("03:20:00").Add(day), until: at("04:00:00").Add(day), keyEnds: at("12:00:00").Add(2 * day), now: at("12:00:00"),
			wantDue: at("12:00:00"),
		},
		"a key that ends after its window": {
			settings: windowed, next: at("03:20:00"), until: at("04:00:00"), keyEnds: at("12:00:00").Add(2 * day), now: at("03:00:00"),
			wantDue: at("03:20:00"), wantUntil: at("04:00:00"),
		},
		"a period": {
			settings: automatedRotation{RotationPeriod: day},
			next:     at("20:00:00"), now: at("12:00:00"), wantDue: at("20:00:00"),
		},
		"a period that a clock which was ahead put off": {
			settings: automatedRotation{RotationPeriod: day},
			next:     at("20:00:00").Add(day), now: at("12:00:00"), wantDue: at("12:00:00"),
		},
		"no window, ahead":  {settings: daily, next: at("03:00:00"), now: at("02:59:59"), wantDue: at("03:00:00")},
		"no window, missed": {settings: daily, next: at("03:00:00"), now: at("12:00:00"), wantDue: at("03:00:00")},
		"no window, a clock that was set by a second just after a rotation": {
			settings: daily, next: at("03:00:00").Add(day), now: at("02:59:59"), wantDue: at("03:00:00").Add(day),
		},
		"no window, put off": {
			settings: daily, next: at("03:00:00").Add(7 * day), now: at("12:00:00"), wantDue: at("12:00:00"),
		},
		"inside the window": {
			settings: windowed, next: at("03:20:00"), until: at("04:00:00"), now: at("03:59:59"),
			wantDue: at("03:20:00"), wantUntil: at("04:00:00"),
		},
		"the window has ended": {
			settings: windowed, next: at("03:20:00"), until: at("04:00:00"), now: at("04:00:00"),
			wantDue: at("03:20:00").Add(day), wantUntil: at("04:00:00").Add(day),
		},
		"the window was missed long ago, and another one is open": {
			settings: windowed, next: at("03:20:00").Add(-9 * day), until: at("04:00:00").Add(-9 * day), now: at("03:30:00"),
			wantDue: at("03:20:00"), wantUntil: at("04:00:00"),
		},
		"the window was put off": {
			settings: windowed, next: at("03:20:00").Add(9 * day), until: at("04:00:00").Add(9 * day), now: at("12:00:00"),
			wantDue: at("03:20:00").Add(day), wantUntil: at("04:00:00").Add(day),
		},
		"windows that overlap": {
			settings: automatedRotation{RotationSchedule: "* * * * *", RotationWindow: time.Hour},
			next:     at("03:00:20"), until: at("04:00:00"), now: at("12:00:30"),
			wantDue: at("11:01:20"), wantUntil: at("12:01:00"),
		},
	} {
		t.Run(name, func(t *testing.T) {
			stored := &config{automatedRotation: c.settings, NextRotation: c.next, RotationUntil: c.until, Keys: rotation.New("a", "key")}
			if !c.keyEnds.IsZero() {
				stored.Keys = stored.Keys.WithTimes(c.keyEnds.Add(-8*day), c.keyEnds)
			}
			due, until := stored.rotationDue(c.now)
			if !due.Equal(c.wantDue) || !until.Equal(c.wantUntil) {
				t.Errorf("it is due at %s, until %s", due, until)
			}
		})
	}
}

func TestConfig_scheduleNext(t *testing.T) {
	now := at("02:30:00")
	for name, c := range map[string]struct {
		settings        automatedRotation
		earliest, until time.Time
		// spread is the time over which rotations are spread.
		spread time.Duration
	}{
		"nothing":  {},
		"disabled": {settings: automatedRotation{RotationSchedule: "0 3 * * *", DisableAutomatedRotation: true}},
		"a disabled period": {
			settings: automatedRotation{RotationPeriod: time.Hour, DisableAutomatedRotation: true},
		},
		"no window": {settings: automatedRotation{RotationSchedule: "0 3 * * *"}, earliest: at("03:00:00")},
		"just now":  {settings: automatedRotation{RotationSchedule: "30 2 * * *"}, earliest: at("02:30:00").Add(24 * time.Hour)},
		"a window": {
			settings: automatedRotation{RotationSchedule: "0 3 * * *", RotationWindow: 2 * time.Hour},
			earliest: at("03:00:00"), until: at("05:00:00"), spread: time.Hour,
		},
		"a window that is longer than the time between two": {
			settings: automatedRotation{RotationSchedule: "* * * * *", RotationWindow: time.Hour},
			earliest: at("02:31:00"), until: at("03:31:00"), spread: 30 * time.Second,
		},
	} {
		t.Run(name, func(t *testing.T) {
			var times []time.Time
			for range 1000 {
				scheduled := &config{automatedRotation: c.settings, NextRotation: now, RotationUntil: now}
				scheduled.scheduleNext(now)
				if !scheduled.RotationUntil.Equal(c.until) {
					t.Fatalf("it may begin until %s", scheduled.RotationUntil)
				}
				times = append(times, scheduled.NextRotation)
			}
			first, last := slices.MinFunc(times, time.Time.Compare), slices.MaxFunc(times, time.Time.Compare)
			if first.Before(c.earliest) || last.Sub(c.earliest) > c.spread || last.Sub(first) < c.spread*9/10 {
				t.Errorf("it is due from %s to %s", first, last)
			}
		})
	}
}

// TestRotationFields_excludeEachOther also in what is stored and what a write adds to it.
func TestRotationFields_excludeEachOther(t *testing.T) {
	period := map[string]any{"rotation_period": "24h"}
	schedule := map[string]any{"rotation_schedule": "0 3 * * *", "rotation_window": "2h"}
	for name, c := range map[string]struct {
		stored, write map[string]any
		// want is in the error, or empty for none.
		want string
		// then is the settings of the config after a write that succeeded.
		then automatedRotation
	}{
		"both in one write":            {nil, map[string]any{"rotation_period": "24h", "rotation_schedule": "0 3 * * *"}, "rotation_schedule excludes rotation_period", automatedRotation{}},
		"a schedule beside a period":   {period, map[string]any{"rotation_schedule": "0 3 * * *"}, "rotation_schedule excludes rotation_period", automatedRotation{}},
		"a period beside a schedule":   {schedule, period, "rotation_schedule excludes rotation_period", automatedRotation{}},
		"a window beside a period":     {period, map[string]any{"rotation_window": "2h"}, "rotation_window needs a rotation_schedule", automatedRotation{}},
		"a window alone":               {nil, map[string]any{"rotation_window": "2h"}, "rotation_window needs a rotation_schedule", automatedRotation{}},
		"a window without an end":      {nil, map[string]any{"rotation_schedule": "0 3 * * *", "rotation_window": "9000h"}, "rotation_window must be 0 or", automatedRotation{}},
		"a window that Vault refuses":  {nil, map[string]any{"rotation_schedule": "0 3 * * *", "rotation_window": "59m"}, "rotation_window must be 0 or", automatedRotation{}},
		"no schedule":                  {nil, map[string]any{"rotation_schedule": "weekly"}, "rotation_schedule must be five cron fields", automatedRotation{}},
		"no day":                       {nil, map[string]any{"rotation_schedule": "0 0 31 6 *"}, "rotation_schedule never falls due", automatedRotation{}},
		"a long grace period":          {nil, map[string]any{"rotation_schedule": "*/10 * * * *"}, "shortest time between two times of rotation_schedule, which is 10m", automatedRotation{}},
		"a grace period beside it":     {schedule, map[string]any{"rotation_grace_period": "12h"}, "rotation_grace_period must be less than half", automatedRotation{}},
		"a grace period that is short": {schedule, map[string]any{"rotation_grace_period": "11h"}, "", automatedRotation{RotationSchedule: "0 3 * * *", RotationWindow: 2 * time.Hour}},
		"each minute":                  {nil, map[string]any{"rotation_schedule": "* * * * *", "rotation_grace_period": 0}, "", automatedRotation{RotationSchedule: "* * * * *"}},
		"from period to schedule":      {period, map[string]any{"rotation_schedule": "0 3 * * *", "rotation_period": 0}, "", automatedRotation{RotationSchedule: "0 3 * * *"}},
		"from schedule to period":      {schedule, map[string]any{"rotation_schedule": "", "rotation_period": "24h"}, "", automatedRotation{RotationPeriod: 24 * time.Hour}},
		"by null":                      {schedule, map[string]any{"rotation_schedule": nil, "rotation_period": "24h"}, "", automatedRotation{RotationPeriod: 24 * time.Hour}},
		"zeros beside each other":      {period, map[string]any{"rotation_schedule": "", "rotation_window": 0}, "", automatedRotation{RotationPeriod: 24 * time.Hour}},
		"a window for what is stored":  {schedule, map[string]any{"rotation_window": "3h"}, "", automatedRotation{RotationSchedule: "0 3 * * *", RotationWindow: 3 * time.Hour}},
		"disabled": {schedule, map[string]any{"disable_automated_rotation": true}, "",
			automatedRotation{RotationSchedule: "0 3 * * *", RotationWindow: 2 * time.Hour, DisableAutomatedRotation: true}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMount(t)
			m.defaults = map[string]any{"iam_url": m.url}
			m.writeConfig("us-south", c.stored)
			before := m.storedConfigOf("us-south").automatedRotation
			if c.want != "" {
				status, text := m.failure(logical.PatchOperation, "config/us-south", c.write)
				if status != http.StatusBadRequest || !strings.Contains(text, c.want) {
					t.Errorf("responded %d %s", status, text)
				}
				c.then = before
			} else {
				m.must(logical.PatchOperation, "config/us-south", c.write)
			}
			if got := m.storedConfigOf("us-south").automatedRotation; got != c.then {
				t.Errorf("stored is %+v", got)
			}
		})
	}
}
