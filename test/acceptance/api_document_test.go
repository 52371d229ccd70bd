// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"cmp"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// apiKey names what docs/api.md and the mount both tell of.
type apiKey struct {
	// path is as the document has it, such as config/<name>.
	path string
	// table is what the table is of by the first word of its first row: to, with an
	// operation in each row, field or answered.
	table string
	// name is an operation's id or a field's name.
	name string
}

func (k apiKey) String() string { return fmt.Sprintf("%s, %q, %s", k.path, k.table, k.name) }

// apiRow is what is told of it.
type apiRow struct {
	// kind is the document's word for a field's type, or an operation's HTTP method.
	kind string
	// byDefault is empty for a field without a default that the mount declares.
	byDefault string
	meaning   string
	// values are those that the field accepts, if they are few.
	values []string
}

// openAPI is the part of an OpenAPI document that is compared.
type openAPI struct {
	Paths      map[string]map[string]json.RawMessage
	Components struct {
		Schemas map[string]struct {
			Properties map[string]openAPISchema
		}
	}
}

type openAPISchema struct {
	Type, Format, Description string
	Default                   any
	Enum                      []string
}

type openAPIOperation struct {
	OperationID string
	Parameters  []struct {
		Name, In, Description string
		Schema                openAPISchema
	}
}

// servedAPI is what the mount says of itself in Vault's OpenAPI document.
func (s *stack) servedAPI() map[apiKey]apiRow {
	s.Helper()
	response, err := s.client.Logical().ReadRawWithContext(s.Context(), "sys/internal/specs/openapi")
	s.check(err)
	defer response.Body.Close()
	var document openAPI
	s.check(json.NewDecoder(response.Body).Decode(&document))
	served := make(map[apiKey]apiRow)
	for path, methods := range document.Paths {
		relative, ours := strings.CutPrefix(path, "/apic/")
		path = strings.NewReplacer("{", "<", "}", ">").Replace(relative)
		for method, encoded := range methods {
			// What is left out is said of all operations, such as the name in the path.
			if ours && slices.Contains([]string{"get", "post", "patch", "delete"}, method) {
				var operation openAPIOperation
				s.check(json.Unmarshal(encoded, &operation))
				served[apiKey{path, "to", operation.OperationID}] = apiRow{kind: method}
				document.addFields(served, path, operation)
			}
		}
	}
	return served
}

func (d openAPI) addFields(served map[apiKey]apiRow, path string, operation openAPIOperation) {
	for _, parameter := range operation.Parameters {
		// What a body accepts too is better told there: a query has no formats.
		key := apiKey{path, "field", parameter.Name}
		if _, told := served[key]; parameter.In == "query" && parameter.Name != "list" && !told {
			served[key] = parameter.Schema.row()
		}
	}
	// Vault loses the references from operations to schemas, but not their names.
	for name, schema := range d.Components.Schemas[schemaName(operation.OperationID)+"Request"].Properties {
		served[apiKey{path, "field", name}] = schema.row()
	}
	for name, schema := range d.Components.Schemas[schemaName(operation.OperationID)+"Response"].Properties {
		schema.Default = nil
		served[apiKey{path, "answered", name}] = schema.row()
	}
}

// schemaName is what the framework makes of an operation's id.
func schemaName(operationID string) (name string) {
	for word := range strings.SplitSeq(operationID, "-") {
		name += strings.ToUpper(word[:1]) + word[1:]
	}
	return name
}

func (o openAPISchema) row() apiRow {
	kinds := map[string]string{"boolean": "bool", "integer": "int", "array": "list", "object": "map"}
	formats := map[string]string{"duration": "duration", "date-time": "time"}
	row := apiRow{kind: cmp.Or(formats[o.Format], kinds[o.Type], o.Type), values: o.Enum}
	if o.Default != nil {
		row.byDefault = fmt.Sprint(o.Default)
	}
	return row
}

// documentedAPI reads the tables of docs/api.md. Each path has a heading of its own.
func documentedAPI(text string) (documented map[apiKey]apiRow, malformed []string) {
	documented = make(map[apiKey]apiRow)
	path, table := "", ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if heading, is := strings.CutPrefix(line, "## "); is {
			path = wholeCode(heading)
		}
		cells := tableRow(line)
		switch {
		case cells == nil || path == "":
			table = ""
		case table == "":
			table = cells[0]
		case strings.HasPrefix(cells[0], "---"):
		default:
			name, row := documentedRow(table, cells)
			if name == "" || row.kind == "" {
				malformed = append(malformed, fmt.Sprintf("the row %q is not one of a table of %q", line, table))
			}
			documented[apiKey{path, table, name}] = row
		}
	}
	return documented, malformed
}

func tableRow(line string) []string {
	if !strings.HasPrefix(line, "|") || !strings.HasSuffix(line, "|") || len(line) < 2 {
		return nil
	}
	cells := strings.Split(line[1:len(line)-1], "|")
	for i := range cells {
		cells[i] = strings.TrimSpace(cells[i])
	}
	return cells
}

// documentedRow has no name and no kind if the table is not to have such a row.
func documentedRow(table string, cells []string) (name string, row apiRow) {
	switch {
	case table == "to" && len(cells) == 4:
		methods := map[string]string{"create": "post", "update": "post", "read": "get", "list": "get", "patch": "patch", "delete": "delete"}
		capability, _, _ := strings.Cut(strings.TrimPrefix(cells[1], "`"), "`")
		return wholeCode(cells[2]), apiRow{kind: methods[capability], meaning: cells[0]}
	case table == "field" && len(cells) == 4:
		return wholeCode(cells[0]), apiRow{kind: cells[1], byDefault: wholeCode(cells[2]), meaning: cells[3]}
	case table == "answered" && len(cells) == 3:
		return wholeCode(cells[0]), apiRow{kind: cells[1], meaning: cells[2]}
	}
	return "", row
}

var onlyCode = regexp.MustCompile("^`([^`]+)`$")

// wholeCode is a text that is all code, and nothing for another one.
func wholeCode(text string) string {
	if found := onlyCode.FindStringSubmatch(text); found != nil {
		return found[1]
	}
	return ""
}

// differences are what must change in the document for it to say what the mount does.
func differences(served, documented map[apiKey]apiRow) (found []string) {
	for key, want := range served {
		said, ok := documented[key]
		switch {
		case !ok:
			found = append(found, fmt.Sprintf("the row %s is missing; it is a %s by default %q", key, want.kind, want.byDefault))
			continue
		case said.kind != want.kind || said.byDefault != want.byDefault:
			found = append(found, fmt.Sprintf("%s is a %s by default %q, not a %s by default %q", key, want.kind, want.byDefault, said.kind, said.byDefault))
		case said.meaning == "":
			found = append(found, fmt.Sprintf("%s has no meaning", key))
		}
		for _, value := range want.values {
			if !strings.Contains(said.meaning, "`"+value+"`") {
				found = append(found, fmt.Sprintf("%s accepts `%s`, which its meaning does not name", key, value))
			}
		}
	}
	for key := range documented {
		if _, ok := served[key]; !ok {
			found = append(found, fmt.Sprintf("the mount does not have %s", key))
		}
	}
	slices.Sort(found)
	return found
}

// operationID is a verb and what it is done to, which a generated client turns into
// the name of a method.
var operationID = regexp.MustCompile(`^apic-(list|read|write|patch|delete|generate|rotate|check)(-[a-z]+)+$`)

func TestAPIDocument_matchesTheMount(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	served := s.servedAPI()
	documented, malformed := documentedAPI(document(t, "api.md"))
	if isOpenBao() {
		withoutPatch(documented)
	}
	for _, difference := range slices.Concat(malformed, differences(served, documented)) {
		t.Errorf("docs/api.md: %s", difference)
	}
	fields := make(map[string][]string)
	for key := range served {
		switch path := key.path; {
		case key.table == "to" && !operationID.MatchString(key.name):
			t.Errorf("%s: the operation id does not read well in a generated client: %s is wanted", key, operationID)
		case key.table == "to" && strings.Contains(path, "<name>") && !slices.Contains(fields[path], "name"):
			fields[path] = append(fields[path], "name")
		case key.table == "field":
			fields[path] = append(fields[path], key.name)
		}
	}
	for path, want := range fields {
		s.requireHelp(path, want)
	}
}

var helpField = regexp.MustCompile(`(?m)^    (\w+) \(`)

// requireHelp holds a path's help against its fields.
func (s *stack) requireHelp(path string, want []string) {
	s.Helper()
	help, err := s.client.Help("apic/" + strings.ReplaceAll(path, "<name>", "us-south"))
	s.check(err)
	var got []string
	for _, field := range helpField.FindAllStringSubmatch(help.Help, -1) {
		got = append(got, field[1])
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		s.Errorf("the help of %s has the fields %q, its OpenAPI document %q", path, got, want)
	}
}

// The comparison finds what a document lacks, and what it has that the mount does not
// serve.
func TestAPIDocument_comparisonFindsDifferences(t *testing.T) {
	const whole = "## `widget/<name>`\n\n" +
		"| to | capability | operation | command |\n|---|---|---|---|\n" +
		"| read it | `read` | `apic-read-widget` | `vault read apic/widget/x` |\n\n" +
		"| field | type | default | meaning |\n|---|---|---|---|\n" +
		"| `shape` | string | `round` | `round` or `square` |\n\n" +
		"| answered | type | meaning |\n|---|---|---|\n" +
		"| `size` | int | how big |\n"
	served := map[apiKey]apiRow{
		{"widget/<name>", "to", "apic-read-widget"}: {kind: "get"},
		{"widget/<name>", "field", "shape"}:         {kind: "string", byDefault: "round", values: []string{"round", "square"}},
		{"widget/<name>", "answered", "size"}:       {kind: "int"},
	}
	for name, c := range map[string]struct{ replace, by, want string }{
		"nothing is wrong":       {"", "", ""},
		"a path is missing":      {"## `widget/<name>`", "## Widgets", "the row widget/<name>, \"to\", apic-read-widget is missing"},
		"a path is made up":      {"## `widget/<name>`", "## `gadget`\n\n| answered | type | meaning |\n|---|---|---|\n| `size` | int | how big |\n\n## `widget/<name>`", "the mount does not have gadget"},
		"an operation is other":  {"apic-read-widget", "apic-get-widget", "apic-read-widget is missing"},
		"a capability is wrong":  {"`read`", "`update`", "apic-read-widget is a get"},
		"a field is missing":     {"| `shape` | string | `round` | `round` or `square` |\n", "", "shape is missing"},
		"a field is made up":     {"| `shape`", "| `colour` | string | none | its colour |\n| `shape`", "does not have widget/<name>, \"field\", colour"},
		"a type is wrong":        {"| int |", "| string |", "size is a int"},
		"a default is wrong":     {"| `round` |", "| `square` |", `shape is a string by default "round"`},
		"a default is left out":  {"| `round` |", "| none |", `shape is a string by default "round"`},
		"a value is left out":    {"`round` or `square`", "`round`", "accepts `square`"},
		"an answer is missing":   {"| `size` | int | how big |\n", "", "size is missing"},
		"a meaning is missing":   {"how big", "", "size has no meaning"},
		"a column is missing":    {"| int | how big |", "| how big |", "the row \"| `size` | how big |\" is not one"},
		"a table is of nothing":  {"| answered |", "| thing |", "is not one of a table of \"thing\""},
		"an operation has no id": {"`apic-read-widget`", "reading", "reading | `vault read apic/widget/x` |\" is not one"},
	} {
		t.Run(name, func(t *testing.T) {
			documented, malformed := documentedAPI(strings.Replace(whole, c.replace, c.by, 1))
			found := strings.Join(slices.Concat(malformed, differences(served, documented)), "\n")
			if c.want == "" && found != "" || !strings.Contains(found, c.want) {
				t.Errorf("found %q, want %q", found, c.want)
			}
		})
	}
}
