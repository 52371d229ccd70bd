// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package rotation

import (
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// mutant is a defect that is put back into the package, for the simulation to
// find.
type mutant struct {
	// defect says what goes wrong.
	defect string
	// In file, old is replaced by new. It is part of one function.
	file, old, new string
	// seed is a life that found it. Where it no longer does, many others are led.
	seed int
}

const (
	// mutantLives is how many lives are led from the seed that is known, and
	// mutantLivesMore how many from the first one if those find nothing.
	mutantLives     = 4
	mutantLivesMore = 10000
	// mutantVariable names the environment variable that says which mutant is on.
	mutantVariable = "ROTATION_MUTANT"
)

var runMutants = flag.Bool("mutants", false, "put known defects back, one at a time, for the simulation to find")

// TestMutants proves that the simulation can fail: it finds each of the defects that
// made this protocol what it is. All mutants are compiled into one binary, beside what
// they mutate.
//
// It takes longer than all other tests of the package, so that only make test-unit asks
// for it.
func TestMutants(t *testing.T) {
	if !*runMutants {
		t.Skip("to put the known defects back: go test -run TestMutants ./internal/rotation -mutants; make test-unit does")
	}
	binary := compileMutants(t)
	slots := make(chan struct{}, runtime.GOMAXPROCS(0))
	for name, m := range mutants {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			slots <- struct{}{}
			defer func() { <-slots }()
			m.mustBeFound(t, binary, name)
		})
	}
}

func (m mutant) mustBeFound(t *testing.T, binary, name string) {
	t.Helper()
	for _, lives := range [][2]int{{m.seed, mutantLives}, {0, mutantLivesMore}} {
		cmd := exec.CommandContext(t.Context(), binary, "-test.run=^TestSimulation$", fmt.Sprint("-seed=", lives[0]), fmt.Sprint("-lives=", lives[1]))
		cmd.Env = append(os.Environ(), mutantVariable+"="+name)
		output, err := cmd.CombinedOutput()
		if err == nil {
			continue
		}
		found := regexp.MustCompile(`seed ([0-9]+): (.*)`).FindSubmatch(output)
		if found == nil {
			t.Fatalf("the mutant fails, and not in the simulation: %s", output)
		}
		t.Logf("seed %s finds that %s: %.200s", found[1], m.defect, found[2])
		return
	}
	t.Fatalf("no life finds that %s", m.defect)
}

// compileMutants compiles the package's tests with all mutants in it, of which a
// variable of the environment chooses one.
func compileMutants(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	overlay := map[string]string{}
	place := func(name, source string) {
		path, err := filepath.Abs(name)
		if err != nil {
			t.Fatal(err)
		}
		overlay[path] = filepath.Join(dir, name)
		writeFile(t, overlay[path], []byte(source))
	}
	place("mutant_choice.go", "package rotation\n\nimport \"os\"\n\nvar chosenMutant = os.Getenv(\""+mutantVariable+"\")\n")
	byFile := map[string]map[string]mutant{}
	for name, m := range mutants {
		if byFile[m.file] == nil {
			byFile[m.file] = map[string]mutant{}
		}
		byFile[m.file][name] = m
	}
	for file, in := range byFile {
		place(file, withMutants(t, file, in))
	}
	encoded, err := json.Marshal(map[string]any{"Replace": overlay})
	if err != nil {
		t.Fatal(err)
	}
	list, binary := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "mutants.test")
	writeFile(t, list, encoded)
	cmd := exec.CommandContext(t.Context(), "go", "test", "-c", "-vet=off", "-overlay="+list, "-o="+binary, ".")
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("the mutants do not compile: %v\n%s", err, output)
	}
	return binary
}

// withMutants returns a file's source in which each function that has mutants begins
// with going to the one that was chosen.
func withMutants(t *testing.T, file string, in map[string]mutant) string {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	source := string(content)
	parsed, err := parser.ParseFile(token.NewFileSet(), file, source, 0)
	if err != nil {
		t.Fatal(err)
	}
	var more strings.Builder
	for _, d := range slices.Backward(parsed.Decls) { // Offsets before a change stay what they are.
		f, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		text := source[f.Pos()-1 : f.End()-1]
		for name, m := range in {
			if n := strings.Count(string(content), m.old); n != 1 {
				t.Fatalf("%s has the text that %q replaces %d times", file, name, n)
			}
			if !strings.Contains(text, m.old) {
				continue
			}
			mutated := fmt.Sprintf("mutant%x", name)
			at := f.Name.End() - f.Pos()
			text := strings.Replace(text, m.old, m.new, 1)
			more.WriteString("\n" + text[:at] + mutated + text[at:] + "\n")
			body := f.Body.Lbrace
			source = source[:body] + fmt.Sprintf("\nif chosenMutant == %q { %s }\n", name, callOf(f, mutated)) + source[body:]
		}
	}
	return source + more.String()
}

// callOf is the call of a function's mutant with its own parameters.
func callOf(f *ast.FuncDecl, suffix string) string {
	call := f.Name.Name + suffix
	if f.Recv != nil {
		call = f.Recv.List[0].Names[0].Name + "." + call
	}
	var args []string
	for _, field := range f.Type.Params.List {
		for _, name := range field.Names {
			args = append(args, name.Name)
		}
	}
	call += "(" + strings.Join(args, ", ") + ")"
	if f.Type.Results == nil {
		return call + "; return"
	}
	return "return " + call
}

func writeFile(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

var mutants = map[string]mutant{
	"a created key is deleted because its Save failed": {
		defect: "a Save that failed and took effect later leaves a config with a deleted key",
		file:   "replace.go",
		old: `		return err // The intent stays, for there may be a key.
	}`,
		new: `		return err
	}
	defer func() {
		if a.rec.Candidate == nil && a.rec.Intent != nil {
			_ = session.Delete(context.WithoutCancel(ctx), made.ID)
		}
	}()`,
		seed: 60,
	},
	"an adopted key is deleted because its adoption failed": {
		defect: "an adoption that failed and took effect later leaves a config with a deleted key",
		file:   "replace.go",
		old:    `		return &doubtError{err}`,
		new: `		if s, err := a.session(ctx, a.rec.Current.Binding, a.rec.Current.Value); err == nil {
			_ = s.Delete(ctx, a.rec.Candidate.ID)
		}
		return &doubtError{err}`,
		seed: 31,
	},
	"a key is deleted before this process has written that": {
		defect: "a deposed leader deletes what it only believes to be replaced",
		file:   "retire.go",
		old: `	k.Condemned = true
	if err := a.save(ctx, a.rec.replace(k)); err != nil {
		return err
	}`,
		new:  `	k.Condemned = true`,
		seed: 3,
	},
	"recovery deletes what it finds": {
		defect: "the next leader deletes a key that a rotation which still runs is about to store",
		file:   "recover.go",
		old:    `	next.Retired = append(next.Retired, found...)`,
		new: `	for _, d := range found {
		_ = session.Delete(ctx, d.ID)
	}
	next.Retired = append(next.Retired, found...)`,
		seed: 3,
	},
	"a replaced key's own value is not used": {
		defect: "a key outlives its replacement by a key of another identity",
		file:   "retire.go",
		old:    `	if k.Value != "" && !k.Disabled {`,
		new:    `	if false {`,
		seed:   8,
	},
	"a cleanup that is refused is given up": {
		defect: "a key whose deletion is refused once is forgotten",
		file:   "retire.go",
		old:    `		if !isRefused(err) {`,
		new: `		if isRefused(err) {
			return a.drop(ctx, k, Deleted)
		} else {`,
		seed: 21,
	},
	"an imported key is not kept for its rights": {
		defect: "the right to look for a key that may have been created is given up with the key before",
		file:   "moves.go",
		old:    `Retired{Key: *c, Keep: true}`,
		new:    `Retired{Keep: true}`,
		seed:   161,
	},
	"what others need for their deletion is deleted first": {
		defect: "the right to delete a key is deleted before it",
		file:   "retire.go",
		old: `	if a.rec.isNeeded(k) {
		return refusef(`,
		new: `	if false {
		return refusef(`,
		seed: 70,
	},
	"a write of the config clears an intent": {
		defect: "the intent of a creation that is under way is cleared by somebody else",
		file:   "moves.go",
		old:    `	r.Current, r.Candidate, r.Grace, r.Brief = nil, nil, nil, false`,
		new:    `	r.Current, r.Candidate, r.Grace, r.Intent = nil, nil, nil, nil`,
		seed:   119,
	},
	"a write of the config forgets a managed key": {
		defect: "a key that rotation made outlives its replacement",
		file:   "moves.go",
		old:    `c != nil && c.Managed {`,
		new:    `c != nil && c.Managed && false {`,
		seed:   3,
	},
	"a deletion goes to the issuer that the config names now": {
		defect: "another issuer's word that it does not know the key is believed",
		file:   "retire.go",
		old:    `func (a *advance) rightOf(ctx context.Context, k Retired) (Session, error) {`,
		new: `func (a *advance) rightOf(ctx context.Context, k Retired) (Session, error) {
	if a.plan.Issuer != "" {
		k.Binding.Issuer = a.plan.Issuer
	}`,
		seed: 36,
	},
	"a key acts at any address": {
		defect: "a key is sent to an issuer that only claims to have its identity",
		file:   "record.go",
		old:    `(k.Binding == on || slices.Contains(k.Elsewhere, on))`,
		new:    `k.Binding.AccountID == on.AccountID && k.Binding.Identity == on.Identity`,
		seed:   287,
	},
	"a key is deleted by its id alone": {
		defect: "somebody else's key is deleted whose id the issuer once answered",
		file:   "retire.go",
		old:    `d.ID != k.ID || d.Name != k.Name ||`,
		new:    `d.ID != k.ID ||`,
		seed:   562,
	},
	"a young key that is not there is believed to be gone": {
		defect: "a key that an issuer does not know yet is forgotten",
		file:   "retire.go",
		old: `age < agreeTime {
		return waitUntil(time.Now().Add(agreeTime-age)`,
		new: `age < 0 {
		return waitUntil(time.Now().Add(agreeTime-age)`,
		seed: 124,
	},
	"an unknown value is believed to be gone at once": {
		defect: "a key whose value the issuer does not know yet is forgotten",
		file:   "retire.go",
		old: `watched < agreeTime {
		return waitUntil(time.Now().Add(agreeTime-watched), "the issuer`,
		new: `watched < 0 {
		return waitUntil(time.Now().Add(agreeTime-watched), "the issuer`,
		seed: 16,
	},
	"an intent is cleared when nothing is found": {
		defect: "a creation that no list shows yet is forgotten",
		file:   "recover.go",
		old:    `len(found) == 0 && watched < agreeTime`,
		new:    `len(found) == 0 && watched < 0`,
		seed:   76,
	},
	"an intent's age is told by the clock": {
		defect: "clocks that differ by minutes void the time in which a key may still turn up",
		file:   "recover.go",
		old:    `	watched := time.Since(a.mem.watch(k.label()))`,
		new:    `	watched := time.Since(k.CreatedAt)`,
		seed:   256,
	},
	"a grace period is told by the process's clock": {
		defect: "clocks that differ by minutes cut a grace period short",
		file:   "retire.go",
		old: `	now := session.Now()
	// What lies further ahead than any grace period was set by a clock that was wrong.
	if k.DeleteAfter.IsZero() && k.Grace > 0 || k.DeleteAfter.Sub(now) > MaxGrace+clockSlack {`,
		new: `	now := session.Now()
	if !k.DeleteAfter.IsZero() {
		now = time.Now()
	}
	// What lies further ahead than any grace period was set by a clock that was wrong.
	if k.DeleteAfter.IsZero() && k.Grace > 0 || k.DeleteAfter.Sub(now) > MaxGrace+clockSlack {`,
		seed: 0,
	},
	"nobody is asked who else holds a key": {
		defect: "a config loses the key that it has taken while its deletion was pending",
		file:   "retire.go",
		old: `	if err := a.condemn(k); err != nil {
		return err
	}
	k.Condemned`,
		new:  `	k.Condemned`,
		seed: 3,
	},
	"a key is taken between the last look and its deletion": {
		defect: "a config takes a key whose deletion is decided",
		file:   "holders.go",
		old:    `ok := h.other(d, ref, dooms|willDoom); ok`,
		new:    `ok := h.other(d, ref, dooms|willDoom); ok && false`,
		seed:   19383,
	},
	"a write under way is not seen": {
		defect: "a key is deleted while it is written into another config",
		file:   "holders.go",
		old:    `		h.mark(ref, d, willHold)`,
		new:    `		_ = d`,
		seed:   37675,
	},
	"keys are deleted before all configs were read": {
		defect: "a key is deleted that a config holds which was not read yet",
		file:   "holders.go",
		old:    `	if !h.complete {`,
		new:    `	if false {`,
		seed:   1305,
	},
	"a name has to come back whole": {
		defect: "a key leaks whose name the issuer has shortened",
		file:   "recover.go",
		old:    `		Name: a.rec.namePrefixOf(*intent), `,
		new:    `		Name: a.rec.nameOf(*intent), `,
		seed:   61,
	},
	"strangers are taken for the record's own": {
		defect: "keys are deleted that were made after the snapshot which was restored",
		file:   "recover.go",
		old:    `session.Find(ctx, k.Name, k.Binding)`,
		new:    `session.Find(ctx, a.rec.prefix(), k.Binding)`,
		seed:   116,
	},
	"a creation without an answer is forgotten": {
		defect: "a key leaks whose creation was not answered",
		file:   "errors.go",
		old:    `	return errors.As(err, &failed) && !failed.OutcomeUnknown`,
		new:    `	return errors.As(err, &failed)`,
		seed:   10,
	},
	"a creation has no stored intent": {
		defect: "a key leaks if the process is killed",
		file:   "replace.go",
		old: `	if err := a.save(creating, intended); err != nil {
		return err
	}`,
		new:  `	_ = intended`,
		seed: 3,
	},
	"late writes are not waited for": {
		defect: "a late write of a process that was killed undoes what is known of a key",
		file:   "engine.go",
		old:    `	if a.plan.Fresh || !time.Now().Before(at) {`,
		new:    `	if true || !time.Now().Before(at) {`,
		seed:   61,
	},
	"late writes are not waited for with a creation": {
		defect: "a late write of a process that was killed forgets a creation",
		file:   "replace.go",
		old:    `	if at := a.lateWritesEndAt(); !at.IsZero() {`,
		new:    `	if at := a.lateWritesEndAt(); false {`,
		seed:   694,
	},
	"a tombstone deletes what is stored": {
		defect: "a config whose deletion did not take place loses its key",
		file:   "recover.go",
		old:    `	if config.Record().UID != a.rec.UID {`,
		new:    `	if true {`,
		seed:   270,
	},
	"a tombstone is dropped that is needed": {
		defect: "a late deletion of a config leaves its keys to nobody",
		file:   "recover.go",
		old:    `	if at := a.lateWritesEndAt(); !at.IsZero() {`,
		new:    `	if at := a.lateWritesEndAt(); false {`,
		seed:   89,
	},
	"a key is disabled that somebody else uses": {
		defect: "a config's readers lose the key that another config has replaced",
		file:   "retire.go",
		old:    `	if a.holders.Condemn(a.ref, k.Value) != nil {`,
		new:    `	if false {`,
		seed:   294,
	},
	"a disabled key is thought to be able to act": {
		defect: "a key that was disabled is left without anything that may delete it",
		file:   "record.go",
		old:    `!r.Keep && (r.Value == "" || r.Disabled)`,
		new:    `!r.Keep && (r.Value == "")`,
		seed:   245,
	},
	"a key is disabled again without a write": {
		defect: "a deposed leader disables a key that the next one has given back",
		file:   "retire.go",
		old: `	k.Disabled = true
	if err := a.save(ctx, a.rec.replace(k)); err != nil {
		return err
	}`,
		new: `	k.Disabled = true
	if c.disable {
		return a.disable(ctx, session, k, c)
	}
	if err := a.save(ctx, a.rec.replace(k)); err != nil {
		return err
	}`,
		seed: 1374,
	},
	"a record meets its own key at another address": {
		defect: "a config whose issuer's address has changed is rotated no more",
		file:   "recover.go",
		old:    `a.rec.knows(d.ID) ||`,
		new:    `a.rec.knows(d.ID) && a.rec.Current != nil && a.rec.Current.Binding.Issuer == of.Issuer ||`,
		seed:   8,
	},
	"a key is sent before it is stored as spent": {
		defect: "a key that works once is sent again by the next process",
		file:   "renew.go",
		old:    `	if !a.rec.Current.Spent {`,
		new:    `	if false {`,
		seed:   2,
	},
	"the last key is spent while a late write may land": {
		defect: "the token that the last key got is lost to a late write",
		file:   "renew.go",
		old: `!a.rec.Token.Lives() && !a.rec.Current.Spent {
		return nil, waitUntil`,
		new: `false {
		return nil, waitUntil`,
		seed: 61322,
	},
	"a key that is reused is not given up": {
		defect: "readers have no token, though another key could be made",
		file:   "reuse.go",
		old:    `isRefused(refused) && k.Reusable`,
		new:    `false && k.Reusable`,
		seed:   81,
	},
	"the key that was to follow one that is reused is forgotten": {
		defect: "a key leaks",
		file:   "reuse.go",
		old:    `	if next.Candidate != nil {`,
		new:    `	if false {`,
		seed:   11,
	},
	"failures are backed off from for longer than the token lives": {
		defect: "a token ends while the next attempt is waited for",
		file:   "engine.go",
		old:    `	if a.plan.Renew && a.rec.Token.Lives() {`,
		new:    `	if false && a.rec.Token.Lives() {`,
		seed:   2129,
	},
	"a key whose end is assumed is dropped": {
		defect: "a key lives on that could have been deleted",
		file:   "retire.go",
		old:    `	if expired && !k.ExpiresAt.IsZero() {`,
		new:    `	if expired {`,
		seed:   5462,
	},
}
