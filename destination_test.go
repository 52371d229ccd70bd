// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"maps"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/apic-vault/vault-plugin-secrets-apic/internal/tokenservice"
)

// TestDestination_whoMayChangeIt has every combination of what a write can bring:
// a key or none, a change of the destination or none, a client secret or none, and
// the fields that are stored with values of their own or not.
func TestDestination_whoMayChangeIt(t *testing.T) {
	const (
		allowed = ""
		key     = "api_key is required again"
		secret  = "client_secret is required again"
		keys    = "api_key is not the stored one"
		secrets = "client_secret is not the stored one"
	)
	for _, row := range []struct {
		key, destination, secret string
		// unnamed and named are what becomes of the write without and with those fields.
		unnamed, named string
	}{
		{"no key", "same", "none", allowed, allowed},
		{"no key", "same", "kept", allowed, allowed},
		{"no key", "same", "same", allowed, allowed},
		{"no key", "same", "other", secrets, allowed},
		{"no key", "changed", "none", key, key},
		{"no key", "changed", "kept", key, key},
		{"no key", "changed", "same", key, key},
		{"no key", "changed", "other", key, key},

		{"same key", "same", "none", allowed, allowed},
		{"same key", "same", "kept", allowed, allowed},
		{"same key", "same", "same", allowed, allowed},
		{"same key", "same", "other", secrets, allowed},
		{"same key", "changed", "none", allowed, allowed},
		{"same key", "changed", "kept", secret, secret},
		{"same key", "changed", "same", allowed, allowed},
		{"same key", "changed", "other", secrets, allowed},

		{"other key", "same", "none", keys, allowed},
		{"other key", "same", "kept", keys, allowed},
		{"other key", "same", "same", keys, allowed},
		{"other key", "same", "other", keys, allowed},
		{"other key", "changed", "none", keys, allowed},
		{"other key", "changed", "kept", secret, secret},
		{"other key", "changed", "same", keys, allowed},
		{"other key", "changed", "other", keys, allowed},
	} {
		t.Run(strings.Join([]string{row.key, row.destination + " destination", row.secret + " secret"}, ", "), func(t *testing.T) {
			stored := preparedConfig(row.secret != "none")
			write := map[string]any{}
			switch row.key {
			case "same key":
				write["api_key"] = stored.APIKey
			case "other key":
				write["api_key"] = "another-key"
			}
			if row.destination == "changed" {
				write["region"] = "eu-gb"
			}
			switch row.secret {
			case "same":
				write["client_secret"] = stored.ClientSecret
			case "other":
				write["client_secret"] = "another-secret"
			}
			requireVerdict(t, stored, write, row.unnamed)
			write["token_service"], write["token_url"], write["api_url"] = string(stored.TokenService), stored.TokenURL, stored.APIURL
			requireVerdict(t, stored, write, row.named)
		})
	}
}

// preparedConfig is the stored config us-south, with a token_url and an api_url that
// somebody has set.
func preparedConfig(platform bool) *config {
	c := &config{
		APIKey: testKey, TokenService: tokenservice.Login, Region: "us-south",
		TokenURL: "https://keys.elsewhere.example/", APIURL: "https://tokens.elsewhere.example",
	}
	if platform {
		c.TokenService, c.ClientID, c.ClientSecret = tokenservice.Platform, "client", testClientSecret
	}
	return c
}

// judge is what a write of the config us-south gets for an answer.
func judge(stored *config, write map[string]any) error {
	_, err := prepareConfig("us-south", stored, &framework.FieldData{Raw: write, Schema: configFields()})
	return err
}

// requireVerdict wants an error that begins like this, or none if that is empty.
func requireVerdict(t *testing.T, stored *config, write map[string]any, want string) {
	t.Helper()
	err := judge(stored, write)
	if (err == nil) != (want == "") || err != nil && !strings.HasPrefix(err.Error(), want) {
		t.Errorf("a write of %d fields is judged %v, want %q", len(write), err, want)
	}
	if err != nil {
		requireNoKey(t, err.Error())
	}
}

// TestDestination_anotherKeyNamesWhatIsStored leaves out one field after the other.
func TestDestination_anotherKeyNamesWhatIsStored(t *testing.T) {
	stored := preparedConfig(false)
	stored.TokenService, stored.Region, stored.IAMURL = tokenservice.IAM, "eu-gb", "https://iam.elsewhere.example"
	stored.CACert = "a certificate"
	all := map[string]any{
		"api_key": "another-key", "token_service": "iam", "region": "us-south",
		"token_url": "", "api_url": nil, "iam_url": "https://iam.example", "ca_cert": "",
	}
	requireVerdict(t, stored, all, "")
	for field := range all {
		if field == "api_key" {
			continue
		}
		write := maps.Clone(all)
		delete(write, field)
		err := judge(stored, write)
		if err == nil || !strings.HasSuffix(err.Error(), "the values that you want: "+field) {
			t.Errorf("without %s the write is judged %v", field, err)
		}
	}
}

func TestDestination_errorNamesHostsAndFields(t *testing.T) {
	for name, c := range map[string]struct {
		stored *config
		write  map[string]any
		want   string
	}{
		"a token_url and an api_url": {
			preparedConfig(false), map[string]any{"api_key": "another-key"},
			"api_key is not the stored one, and would be sent to keys.elsewhere.example, its tokens to tokens.elsewhere.example, which earlier writes chose; name these fields again, with the values that you want: token_url, api_url",
		},
		"a client secret": {
			preparedConfig(true), map[string]any{"credentials": `{"toolkit":{"client_id":"a","client_secret":"b"}}`},
			"client_secret is not the stored one, and would be sent to keys.elsewhere.example, its tokens to tokens.elsewhere.example, which earlier writes chose; name these fields again, with the values that you want: token_service, token_url, api_url",
		},
		"an iam_url": {
			&config{APIKey: testKey, TokenService: tokenservice.Login, Region: "us-south", IAMURL: "https://iam.elsewhere.example:8443"},
			map[string]any{"api_key": "another-key"},
			"api_key is not the stored one, and would be sent to login.service.us-south.apiconnect.ibmcloud.com and iam.elsewhere.example:8443, its tokens to apimanager.us-south.apiconnect.cloud.ibm.com, which earlier writes chose; name these fields again, with the values that you want: iam_url",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := judge(c.stored, c.write); err == nil || err.Error() != c.want {
				t.Errorf("judged\n%v, want\n%s", err, c.want)
			}
		})
	}
}

// TestDestination_defaultsNeedNotBeNamed has what most configs are: the name is the
// region, and the service's own addresses are meant.
func TestDestination_defaultsNeedNotBeNamed(t *testing.T) {
	stored := &config{APIKey: testKey, TokenService: tokenservice.Login, Region: "us-south"}
	requireVerdict(t, stored, map[string]any{"api_key": "another-key"}, "")
	stored.Region = "eu-gb"
	requireVerdict(t, stored, map[string]any{"api_key": "another-key"}, "api_key is not the stored one")
}

// TestDestination_leavingAServiceLeavesItsFields has a move to the platform service,
// which does not accept the iam_url that is stored.
func TestDestination_leavingAServiceLeavesItsFields(t *testing.T) {
	stored := &config{APIKey: testKey, TokenService: tokenservice.IAM, Region: "us-south", IAMURL: "https://iam.elsewhere.example"}
	requireVerdict(t, stored, map[string]any{
		"api_key": "another-key", "token_service": "platform", "client_id": "client", "client_secret": testClientSecret,
	}, "")
}

// TestDestination_firstSecretNamesFields has a login config, whose holder chose the
// token_url, become one of the platform: the client secret's owner has to choose.
func TestDestination_firstSecretNamesFields(t *testing.T) {
	write := map[string]any{"api_key": testKey, "token_service": "platform", "client_id": "client", "client_secret": testClientSecret}
	requireVerdict(t, preparedConfig(false), write, "client_secret is not the stored one")
}

// TestDestination_nullIsNoSecret has a merge patch name credentials, which leaves the
// stored client secret as it is.
func TestDestination_nullIsNoSecret(t *testing.T) {
	write := map[string]any{"api_key": "made-up", "credentials": nil, "token_service": "platform", "token_url": "https://a.example", "api_url": nil}
	requireVerdict(t, preparedConfig(true), write, "client_secret is required again")
}

// TestDestination_preparedForTheNextKey has somebody who may write the config, and
// knows no key, wait for the owner's next one.
func TestDestination_preparedForTheNextKey(t *testing.T) {
	m := newMount(t)
	thief := newMount(t)
	m.must(logical.CreateOperation, "config/us-south", map[string]any{"api_key": testKey, "verify": false})
	m.must(logical.UpdateOperation, "config/us-south", map[string]any{
		"api_key": "made-up", "token_url": thief.url + "/apikey", "verify": false,
	})
	status, text := m.failure(logical.UpdateOperation, "config/us-south", map[string]any{"api_key": testKey})
	if status != 400 || !strings.Contains(text, strings.TrimPrefix(thief.url, "http://")) || !strings.HasSuffix(text, ": token_url") {
		t.Errorf("responded %d %s", status, text)
	}
	if got := thief.sim.Counts().Exchanges; got != 0 {
		t.Fatalf("the key was sent %d times", got)
	}
	m.writeConfig("us-south", nil)
	m.readToken("us-south")
}
