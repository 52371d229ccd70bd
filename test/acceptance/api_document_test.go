// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// apiPath is what a path of the mount accepts and answers, after docs/api.md or
// after the mount itself.
type apiPath struct {
	// operations are HTTP methods by operation id.
	operations map[string]string
	// accepts and answers are fields by name, without those in the path.
	accepts, answers map[string]apiField
}

type apiField struct {
	// kind is the document's word for the type.
	kind string
	// byDefault is empty for a field without a default that the mount declares.
	byDefault string
	meaning   string
	// values are those that the field accepts, if they are few.
	values []string
}

func newAPIPath() *apiPath {
	return &apiPath{operations: map[string]string{}, accepts: map[string]apiField{}, answers: map[string]apiField{}}
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
func (s *stack) servedAPI() map[string]*apiPath {
	s.Helper()
	response, err := s.client.Logical().ReadRawWithContext(s.Context(), "sys/internal/specs/openapi")
	s.check(err)
	defer response.Body.Close()
	var document openAPI
	s.check(json.NewDecoder(response.Body).Decode(&document))
	served := make(map[string]*apiPath)
	for path, methods := range document.Paths {
		if relative, ours := strings.CutPrefix(path, "/apic/"); ours {
			path = strings.NewReplacer("{", "<", "}", ">").Replace(relative)
			served[path] = s.servedPath(document, methods)
		}
	}
	return served
}

func (s *stack) servedPath(document openAPI, methods map[string]json.RawMessage) *apiPath {
	s.Helper()
	path := newAPIPath()
	for method, encoded := range methods {
		if !slices.Contains([]string{"get", "post", "patch", "delete"}, method) {
			continue // What is said of all operations, such as the name in the path.
		}
		var operation openAPIOperation
		s.check(json.Unmarshal(encoded, &operation))
		path.operations[operation.OperationID] = method
		for _, parameter := range operation.Parameters {
			// What a body accepts too is better told there: a query has no formats.
			if _, told := path.accepts[parameter.Name]; parameter.In == "query" && parameter.Name != "list" && !told {
				path.accepts[parameter.Name] = parameter.Schema.field(parameter.Description)
			}
		}
		// Vault loses the references from operations to schemas, but not their names.
		for name, schema := range document.Components.Schemas[schemaName(operation.OperationID)+"Request"].Properties {
			path.accepts[name] = schema.field(schema.Description)
		}
		for name, schema := range document.Components.Schemas[schemaName(operation.OperationID)+"Response"].Properties {
			path.answers[name] = schema.field(schema.Description)
		}
	}
	return path
}

// schemaName is what the framework makes of an operation's id.
func schemaName(operationID string) (name string) {
	for word := range strings.SplitSeq(operationID, "-") {
		name += strings.ToUpper(word[:1]) + word[1:]
	}
	return name
}

func (o openAPISchema) field(meaning string) apiField {
	kinds := map[string]string{"boolean": "bool", "integer": "int", "array": "list", "object": "map"}
	formats := map[string]string{"duration": "duration", "date-time": "time"}
	f := apiField{kind: o.Type, meaning: meaning, values: o.Enum}
	if kind, ok := kinds[o.Type]; ok {
		f.kind = kind
	}
	if kind, ok := formats[o.Format]; ok {
		f.kind = kind
	}
	if o.Default != nil {
		f.byDefault = fmt.Sprint(o.Default)
	}
	return f
}

var (
	pathHeading = regexp.MustCompile("^## `([^`]+)`$")
	inCode      = regexp.MustCompile("`([^`]+)`")
	onlyCode    = regexp.MustCompile("^`[^`]+`$")
)

// documentedAPI reads the tables of docs/api.md. Each path has a heading of its
// own; the first word of a table's first row says what the table is of.
func documentedAPI(text string) (documented map[string]*apiPath, malformed []string) {
	documented = make(map[string]*apiPath)
	var path *apiPath
	table := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "## ") {
			path = nil
			if heading := pathHeading.FindStringSubmatch(line); heading != nil {
				path = newAPIPath()
				documented[heading[1]] = path
			}
		}
		cells := tableRow(line)
		switch {
		case cells == nil || path == nil:
			table = ""
		case table == "":
			table = cells[0]
		case strings.HasPrefix(cells[0], "---"):
		default:
			if err := path.addRow(table, cells); err != nil {
				malformed = append(malformed, fmt.Sprintf("the row %q: %v", line, err))
			}
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

func (p *apiPath) addRow(table string, cells []string) error {
	columns := map[string]int{"to": 4, "field": 4, "answered": 3}[table]
	if len(cells) != columns {
		return fmt.Errorf("a table whose first column is %q has %d columns", table, columns)
	}
	switch table {
	case "to":
		methods := map[string]string{"create": "post", "update": "post", "read": "get", "list": "get", "patch": "patch", "delete": "delete"}
		capability, id := inCode.FindStringSubmatch(cells[1]), inCode.FindStringSubmatch(cells[2])
		if capability == nil || id == nil {
			return fmt.Errorf("a capability and an operation id are wanted in the second and third columns, as code")
		}
		p.operations[id[1]] = methods[capability[1]]
		return nil
	case "field":
		f := apiField{kind: cells[1], meaning: cells[3]}
		if onlyCode.MatchString(cells[2]) {
			f.byDefault = strings.Trim(cells[2], "`")
		}
		p.accepts[strings.Trim(cells[0], "`")] = f
		return nil
	default:
		p.answers[strings.Trim(cells[0], "`")] = apiField{kind: cells[1], meaning: cells[2]}
		return nil
	}
}

// differences are what must change in the document for it to say what the mount
// does, as sentences with the Markdown that is missing.
func differences(served, documented map[string]*apiPath) (found []string) {
	for _, name := range slices.Sorted(maps.Keys(served)) {
		if documented[name] == nil {
			found = append(found, fmt.Sprintf("the document has no section for the path %s; one to begin with:\n\n%s", name, served[name].markdown(name)))
			continue
		}
		for _, difference := range served[name].differences(documented[name]) {
			found = append(found, name+": "+difference)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(documented)) {
		if served[name] == nil {
			found = append(found, fmt.Sprintf("the document has a section for %s, which the mount does not serve", name))
		}
	}
	return found
}

func (p *apiPath) differences(documented *apiPath) (found []string) {
	for _, id := range slices.Sorted(maps.Keys(p.operations)) {
		if method, ok := documented.operations[id]; !ok {
			found = append(found, fmt.Sprintf("the document misses the operation\n%s", operationRow(id, p.operations[id])))
		} else if method != p.operations[id] {
			found = append(found, fmt.Sprintf("the operation %s is a %s, but the document's capability makes it a %s", id, p.operations[id], method))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(documented.operations)) {
		if p.operations[id] == "" {
			found = append(found, fmt.Sprintf("the document has the operation %s, which the mount does not", id))
		}
	}
	return slices.Concat(found,
		fieldDifferences("field", p.accepts, documented.accepts, apiField.acceptedRow),
		fieldDifferences("answered field", p.answers, documented.answers, apiField.answeredRow))
}

func fieldDifferences(what string, served, documented map[string]apiField, row func(apiField, string) string) (found []string) {
	for _, name := range slices.Sorted(maps.Keys(served)) {
		want := served[name]
		said, ok := documented[name]
		switch {
		case !ok:
			found = append(found, fmt.Sprintf("the document misses the %s\n%s", what, row(want, name)))
			continue
		case said.kind != want.kind:
			found = append(found, fmt.Sprintf("the %s %s is of type %s, the document says %s", what, name, want.kind, said.kind))
		case said.byDefault != want.byDefault && what == "field":
			found = append(found, fmt.Sprintf("the %s %s has the default %q, the document says %q", what, name, want.byDefault, said.byDefault))
		case said.meaning == "":
			found = append(found, fmt.Sprintf("the document does not say what the %s %s means", what, name))
		}
		for _, value := range want.values {
			if !strings.Contains(said.meaning, "`"+value+"`") {
				found = append(found, fmt.Sprintf("the %s %s accepts `%s`, which its meaning in the document does not name", what, name, value))
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(documented)) {
		if _, ok := served[name]; !ok {
			found = append(found, fmt.Sprintf("the document has the %s %s, which the mount does not", what, name))
		}
	}
	return found
}

func operationRow(id, method string) string {
	capability := map[string]string{"post": "update", "get": "read", "patch": "patch", "delete": "delete"}[method]
	if strings.Contains(id, "-list-") {
		capability = "list"
	}
	return fmt.Sprintf("| ... | `%s` | `%s` | `vault ...` |", capability, id)
}

func (f apiField) acceptedRow(name string) string {
	byDefault := "none"
	if f.byDefault != "" {
		byDefault = "`" + f.byDefault + "`"
	}
	return fmt.Sprintf("| `%s` | %s | %s | %s |", name, f.kind, byDefault, f.meaning)
}

func (f apiField) answeredRow(name string) string {
	return fmt.Sprintf("| `%s` | %s | %s |", name, f.kind, f.meaning)
}

// markdown is a section of docs/api.md to begin with.
func (p *apiPath) markdown(name string) string {
	lines := []string{"## `" + name + "`", "", "| to | capability | operation | command |", "|---|---|---|---|"}
	for _, id := range slices.Sorted(maps.Keys(p.operations)) {
		lines = append(lines, operationRow(id, p.operations[id]))
	}
	if len(p.accepts) > 0 {
		lines = append(lines, "", "| field | type | default | meaning |", "|---|---|---|---|")
	}
	for _, field := range slices.Sorted(maps.Keys(p.accepts)) {
		lines = append(lines, p.accepts[field].acceptedRow(field))
	}
	if len(p.answers) > 0 {
		lines = append(lines, "", "| answered | type | meaning |", "|---|---|---|")
	}
	for _, field := range slices.Sorted(maps.Keys(p.answers)) {
		lines = append(lines, p.answers[field].answeredRow(field))
	}
	return strings.Join(lines, "\n") + "\n"
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
	for _, path := range slices.Sorted(maps.Keys(served)) {
		for id := range served[path].operations {
			if !operationID.MatchString(id) {
				t.Errorf("%s: the operation id %q does not read well in a generated client: %s is wanted", path, id, operationID)
			}
		}
		s.requireHelp(path, served[path])
	}
}

var helpField = regexp.MustCompile(`(?m)^    (\w+) \(`)

// requireHelp holds a path's help against its fields.
func (s *stack) requireHelp(path string, served *apiPath) {
	s.Helper()
	want := slices.Collect(maps.Keys(served.accepts))
	if strings.Contains(path, "<name>") {
		want = append(want, "name")
	}
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
	served := map[string]*apiPath{"widget/<name>": {
		operations: map[string]string{"apic-read-widget": "get"},
		accepts:    map[string]apiField{"shape": {kind: "string", byDefault: "round", meaning: "its shape", values: []string{"round", "square"}}},
		answers:    map[string]apiField{"size": {kind: "int", meaning: "how big"}},
	}}
	for name, c := range map[string]struct{ replace, by, want string }{
		"nothing is wrong":       {"", "", ""},
		"a path is missing":      {"## `widget/<name>`", "## Widgets", "no section for the path widget/<name>"},
		"a path is made up":      {"## `widget/<name>`", "## `gadget`\n\n## `widget/<name>`", "section for gadget"},
		"an operation is other":  {"apic-read-widget", "apic-get-widget", "misses the operation\n| ... | `read` | `apic-read-widget` |"},
		"a capability is wrong":  {"`read`", "`update`", "apic-read-widget is a get"},
		"a field is missing":     {"| `shape` | string | `round` | `round` or `square` |\n", "", "misses the field\n| `shape` | string | `round` | its shape |"},
		"a field is made up":     {"| `shape`", "| `colour` | string | none | its colour |\n| `shape`", "has the field colour"},
		"a type is wrong":        {"| int |", "| string |", "size is of type int"},
		"a default is wrong":     {"| `round` |", "| `square` |", `has the default "round"`},
		"a default is left out":  {"| `round` |", "| none |", `has the default "round"`},
		"a value is left out":    {"`round` or `square`", "`round`", "accepts `square`"},
		"an answer is missing":   {"| `size` | int | how big |\n", "", "misses the answered field\n| `size` | int | how big |"},
		"a meaning is missing":   {"how big", "", "does not say what the answered field size means"},
		"a column is missing":    {"| int | how big |", "| how big |", "has 3 columns"},
		"a table is of nothing":  {"| answered |", "| thing |", "has 0 columns"},
		"an operation has no id": {"`apic-read-widget`", "reading", "an operation id are wanted"},
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
