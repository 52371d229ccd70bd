// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package keyissuer

import "net/http"

// action is what a call wants, as it reads in a refusal.
type action string

const (
	readOwnKey action = "read the details of its API key"
	readKey    action = "read the details of the API key"
	createKey  action = "create an API key"
	listKeys   action = "list its API keys"
	disableKey action = "disable the API key"
	deleteKey  action = "delete the API key"
)

// isAboutOneKey says whether a 404 can be about the key that the call names.
func (a action) isAboutOneKey() bool { return a != createKey && a != listKeys }

// isConflict says whether a status is about the state that the keys are in. IBM's
// reference gives 409 for conflicts, its services 400 and 422 as well.
func isConflict(status int) bool {
	return status == http.StatusBadRequest || status == http.StatusConflict || status == http.StatusUnprocessableEntity
}
