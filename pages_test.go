// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestPages_nameTestsThatExist keeps the threat model from naming a test that
// was renamed or is gone, and ARCHITECTURE.md too.
func TestPages_nameTestsThatExist(t *testing.T) {
	existing := testNames(t)
	named := regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9_]+)`")
	for _, page := range []string{"SECURITY.md", "ARCHITECTURE.md"} {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		found := named.FindAllStringSubmatch(string(text), -1)
		if len(found) < 5 {
			t.Errorf("%s names %d tests only", page, len(found))
		}
		for _, name := range found {
			if !existing[name[1]] {
				t.Errorf("%s names %s, which does not exist", page, name[1])
			}
		}
	}
}

// testNames are the tests and fuzzers of all packages.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)[A-Za-z0-9_]+)\(`)
	names := make(map[string]bool)
	err := filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, name := range declared.FindAllStringSubmatch(string(text), -1) {
			names[name[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestPages_listEveryExample keeps the table of examples/README.md complete: make
// test-examples goes by it. Each folder says what it needs and what it leaves.
func TestPages_listEveryExample(t *testing.T) {
	existing := testNames(t)
	page, err := os.ReadFile("examples/README.md")
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile(`(?m)^\| [^|]+ \| \[([^|]+)\]\(([^|]+)\) \| [^|]+ \| ([^|]+) \|$`)
	test := regexp.MustCompile("^`(TestExample[A-Za-z_]+)`")
	listed := make(map[string]bool)
	for _, cells := range row.FindAllStringSubmatch(string(page), -1) {
		folder, held := cells[2], cells[3]
		listed[folder] = true
		if cells[1] != folder {
			t.Errorf("%s goes by the name %s", folder, cells[1])
		}
		if named := test.FindStringSubmatch(held); named != nil {
			if !existing[named[1]] {
				t.Errorf("%s is run by %s, which does not exist", folder, named[1])
			}
		} else if !strings.HasPrefix(held, "not executed: ") {
			t.Errorf("%s has neither a test nor a reason why it is not executed, but %q", folder, held)
		}
	}
	for _, folder := range exampleFolders(t, listed) {
		if !listed[folder] {
			t.Errorf("examples/README.md does not list %s", folder)
		}
		requireNeedsAndLeaves(t, folder)
	}
}

// exampleFolders are those in examples, and instead of one that is not listed those
// in it.
func exampleFolders(t *testing.T, listed map[string]bool) (folders []string) {
	t.Helper()
	for _, folder := range foldersIn(t, "examples") {
		within := foldersIn(t, filepath.Join("examples", folder))
		if listed[folder] || len(within) == 0 {
			folders = append(folders, folder)
			continue
		}
		for _, name := range within {
			folders = append(folders, folder+"/"+name)
		}
	}
	return folders
}

func foldersIn(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if entry.IsDir() {
			names = append(names, entry.Name())
		}
	}
	return names
}

// requireNeedsAndLeaves looks for these words in the README of an example, or at the
// head of the one file that it is.
func requireNeedsAndLeaves(t *testing.T, folder string) {
	t.Helper()
	path := filepath.Join("examples", folder, "README.md")
	if _, err := os.Stat(path); err != nil {
		files, err := filepath.Glob(filepath.Join("examples", folder, "*"))
		if err != nil || len(files) != 1 {
			t.Errorf("%s has no README and %d files: %v", folder, len(files), err)
			return
		}
		path = files[0]
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"needs", "leaves"} {
		if !regexp.MustCompile(`(?i)\b` + word + `\b`).Match(text) {
			t.Errorf("%s does not say what it %s", path, word)
		}
	}
}
