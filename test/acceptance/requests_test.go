// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"

	"github.com/hashicorp/vault/api"
)

// configData is a config for the simulated service, with overrides.
func (s *stack) configData(overrides map[string]any) map[string]any {
	data := map[string]any{
		"api_key": s.key, "token_url": s.service.URL() + "/apikey", "api_url": s.service.URL(), "max_retries": 0,
	}
	maps.Copy(data, overrides)
	return data
}

// anotherKey makes a key that the services accept and that nothing is remembered of. It
// begins with the first one, so that a search for that finds it too.
func (s *stack) anotherKey() string {
	s.moreKeys++
	key := fmt.Sprint(s.key, "-", s.moreKeys)
	s.sim.AddKey(key)
	return key
}

// read and write end the test if Vault answers an error, and tryRead and tryWrite return it.
func (s *stack) read(path string) *api.Secret {
	s.Helper()
	secret, err := s.client.Logical().Read(path)
	s.check(err)
	return secret
}

func (s *stack) write(path string, data map[string]any) *api.Secret {
	s.Helper()
	secret, err := s.client.Logical().Write(path, data)
	s.check(err)
	return secret
}

func (s *stack) tryRead(path string) error {
	_, err := s.client.Logical().Read(path)
	return err
}

func (s *stack) tryWrite(path string, data map[string]any) error {
	_, err := s.client.Logical().Write(path, data)
	return err
}

func (s *stack) writeConfig(name string, overrides map[string]any) {
	s.Helper()
	s.write("apic/config/"+name, s.configData(overrides))
}

func (s *stack) readToken(name string) *api.Secret {
	s.Helper()
	return s.read("apic/token/" + name)
}

// as is a client with a new Vault token of these policy rules.
func (s *stack) as(rules string) *api.Client {
	s.Helper()
	s.check(s.client.Sys().PutPolicy("under-test", rules))
	made, err := s.client.Auth().Token().Create(&api.TokenCreateRequest{Policies: []string{"under-test"}})
	s.check(err)
	client, err := s.client.Clone()
	s.check(err)
	client.SetToken(made.Auth.ClientToken)
	return client
}

// status is the HTTP status of an error that Vault answered.
func status(err error) int {
	var answered *api.ResponseError
	if errors.As(err, &answered) {
		return answered.StatusCode
	}
	return 0
}

func (s *stack) readAs(client *api.Client) *api.Secret {
	s.Helper()
	secret, err := client.Logical().Read("apic/token/us-south")
	s.check(err)
	return secret
}

// requireError fails unless Vault answered with this status and said all of this.
func (s *stack) requireError(what string, err error, want int, says ...string) {
	s.Helper()
	if status(err) != want {
		s.Errorf("%s: answered %v, want status %d", what, err, want)
		return
	}
	for _, text := range says {
		if !strings.Contains(err.Error(), text) {
			s.Errorf("%s: the error does not say %q: %v", what, text, err)
		}
	}
	s.requireNowhere(what, err.Error())
}

func (s *stack) callMe(token string) int {
	s.Helper()
	return s.call("/v1/me", token)
}

// call is the API manager's status for a token.
func (s *stack) call(path, token string) int {
	s.Helper()
	status, _, _ := s.get(s.service.URL()+path, "Authorization: Bearer "+token)
	return status
}

// get sends a header, and none with an empty one.
func (s *stack) get(url, header string) (status int, contentType, body string) {
	s.Helper()
	req, err := http.NewRequestWithContext(s.Context(), http.MethodGet, url, nil)
	s.check(err)
	if name, value, found := strings.Cut(header, ": "); found {
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	s.check(err)
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	s.check(err)
	return resp.StatusCode, resp.Header.Get("Content-Type"), string(content)
}

// scrape asks Vault as a scraper does.
func (s *stack) scrape(path, token string) (status int, contentType, body string) {
	s.Helper()
	return s.get(s.client.Address()+"/v1/"+path, "Authorization: Bearer "+token)
}
