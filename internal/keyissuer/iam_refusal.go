// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package keyissuer

import (
	"encoding/json"
	"net/http"
	"regexp"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/upstream"
)

// limitReached is the code for an identity that has as many keys as it may. It
// came with HTTP 422 (terraform-provider-ibm's issue 3626). IBM's "IAM limits" give 20
// keys for each user and service ID by default; "Increasing account limits" says how
// an account gets more.
const limitReached = "BXNIM0151E"

// explainIAM is the explain of a session with IAM, which has a code in its own words.
func explainIAM(wanted action, a *upstream.Answer, secrets []upstream.Secret) (because upstream.Refusal, own bool) {
	code, trace := parseError(a.Body, secrets...)
	because = iamRefusal(wanted, a.Status, code)
	because.Code, because.RequestID = code, trace
	return because, code != ""
}

func iamRefusal(wanted action, status int, code string) upstream.Refusal {
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return upstream.Refusal{
			Reason: "does not let the key's identity " + string(wanted),
			// See "Restricting users from creating API keys" and "Managing service ID API
			// keys" in IBM Cloud's documentation.
			Advice: "give a user the role User API key creator on the IAM Identity Service, and a service ID the role Operator there",
		}
	case wanted == createKey && code == limitReached:
		return upstream.Refusal{
			Reason: "refused to create an API key",
			Advice: "the identity has as many as its account allows, 20 unless that was raised: delete those that nobody uses, or have the limit raised",
		}
	case wanted == createKey && isConflict(status):
		return upstream.Refusal{
			Reason: "refused to create an API key",
			Advice: "see whether the identity has as many as its account allows (by default 20 API keys at most), and what else the account's IAM settings restrict",
		}
	case (wanted == deleteKey || wanted == disableKey) && isConflict(status):
		return upstream.Refusal{
			Reason: "refused to " + string(wanted),
			Advice: "a locked key can be neither disabled nor deleted: unlock it in IBM Cloud under Manage, Access (IAM), API keys",
		}
	case wanted == readOwnKey && (status == http.StatusNotFound || status == http.StatusBadRequest):
		return upstream.Refusal{
			Reason: "does not know the API key",
			Advice: "it was deleted or belongs elsewhere; create one in IBM Cloud and write the config again with api_key",
		}
	case status == http.StatusNotFound && wanted.isAboutOneKey() && code != "":
		return upstream.Refusal{Reason: "does not know the API key"}
	case status == http.StatusNotFound:
		return upstream.Refusal{Reason: "has no such address or identity", Advice: "check " + iamURLField}
	default:
		return upstream.Refusal{Reason: "refused to " + string(wanted), Advice: "check " + iamURLField}
	}
}

// errorCode has the forms of message_code, such as BXNIM0102E, and code, such as
// not_found. Neither can be a key, whose characters are more mixed.
var errorCode = regexp.MustCompile(`^([A-Z]{2,8}[0-9]{3,5}[A-Z]?|[a-z]+(_[a-z]+){0,5})$`)

const maxErrorCodeBytes = 64

// parseError takes a code and the id of the request from an error's body, each
// only if it looks like one and holds no secret. See ExceptionResponse in
// iamidentityv1, and errorCode in the token endpoint's errors; its messages are not
// ours to repeat.
func parseError(body []byte, secrets ...upstream.Secret) (code, trace string) {
	var parsed struct {
		Trace     string `json:"trace"`
		ErrorCode string `json:"errorCode"`
		Errors    []struct {
			Code        string `json:"code"`
			MessageCode string `json:"message_code"`
		} `json:"errors"`
	}
	// A body of another shape leaves the fields empty, which is what it tells.
	_ = json.Unmarshal(body, &parsed)
	trace = upstream.Handle(parsed.Trace, secrets...)
	var candidates []string
	for _, e := range parsed.Errors {
		candidates = append(candidates, e.MessageCode, e.Code)
	}
	for _, candidate := range append(candidates, parsed.ErrorCode) {
		if len(candidate) <= maxErrorCodeBytes && errorCode.MatchString(candidate) && !upstream.HoldsAny(candidate, secrets...) {
			return candidate, trace
		}
	}
	return "", trace
}
