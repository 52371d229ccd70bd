// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"encoding/json"
	"maps"
	"slices"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

// checkFieldTypes finds the fields whose values do not convert to their types
// before the framework does, whose error quotes the value: people paste keys into
// the wrong field.
func checkFieldTypes(path *framework.Path, data map[string]any) error {
	for _, field := range slices.Sorted(maps.Keys(data)) {
		schema := path.Fields[field]
		if schema == nil {
			continue
		}
		one := framework.FieldData{Raw: map[string]any{field: data[field]}, Schema: path.Fields}
		if one.Validate() != nil {
			return fieldError(field, "must be "+describeType(schema.Type))
		}
	}
	return nil
}

func describeType(t framework.FieldType) string {
	switch t {
	case framework.TypeDurationSecond:
		return "a duration that is not negative, such as 30s, 10m or a number of seconds"
	case framework.TypeBool:
		return "true or false"
	case framework.TypeInt:
		return "a whole number"
	default:
		return "a text"
	}
}

// stringifySecretFields turns a secret field that was sent as a JSON object or
// list back into text: apikey.json pasted into a request body, say.
func stringifySecretFields(req *logical.Request) {
	for _, field := range secretFields() {
		value, ok := req.Data[field]
		if !ok {
			continue
		}
		switch value.(type) {
		case map[string]any, []any:
		default:
			continue
		}
		text, err := json.Marshal(value)
		if err != nil {
			text = nil
		}
		req.Data[field] = string(text)
	}
}

func secretFields() []string { return []string{"api_key", "client_secret", "credentials"} }
