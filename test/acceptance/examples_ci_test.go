// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package acceptance

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gopkg.in/yaml.v3"
)

// The blocks of the README of examples/ci.
const (
	ciPolicy = iota
	ciGitHub
	ciGitLab
	ciJenkins
	_
	ciBlocks
)

func TestExampleCI_gitHubActions(t *testing.T) {
	t.Parallel()
	needs(t, "curl", "curl", "--version")
	needs(t, "jq", "jq", "--version")
	e := newCIExample(t)
	const issuer = "https://token.actions.githubusercontent.com"
	e.trustIssuer(ciGitHub, issuer)
	e.mustRun(ciGitHub)
	// Between the test and GitHub is curl, of whose order the race detector knows nothing.
	var ref atomic.Value
	ref.Store("refs/heads/main")
	gitHub := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer of-the-job" || r.FormValue("api-version") != "2.0" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		claims := map[string]any{"iss": issuer, "aud": r.FormValue("audience"), "repository": "my-org/my-repository", "ref": ref.Load()}
		_ = json.NewEncoder(w).Encode(map[string]string{"value": e.jwt(claims)})
	}))
	t.Cleanup(gitHub.Close)
	var workflow struct {
		Jobs map[string]struct{ Steps []struct{ Run string } }
	}
	e.readYAML("github-actions/apic.yml", &workflow)
	script := e.addBlock(workflow.Jobs["me"].Steps[0].Run)
	e.more = append(e.more, "ACTIONS_ID_TOKEN_REQUEST_URL="+gitHub.URL+"/?api-version=2.0", "ACTIONS_ID_TOKEN_REQUEST_TOKEN=of-the-job")

	e.requireCallsAPIConnect(script)
	ref.Store("refs/heads/another")
	if said, err := e.run(script); err == nil || !strings.Contains(said, "400") {
		t.Errorf("a job of another branch says %s", e.scrub(said))
	}
}

func TestExampleCI_gitLab(t *testing.T) {
	t.Parallel()
	needs(t, "curl", "curl", "--version")
	e := newCIExample(t)
	const issuer = "https://gitlab.example"
	e.trustIssuer(ciGitLab, issuer)
	e.mustRun(ciGitLab)
	claims := map[string]any{
		"iss": issuer, "aud": e.client.Address(), "project_path": "my-group/my-project",
		"ref": "main", "ref_type": "branch", "ref_protected": "true",
	}
	var jobs map[string]struct{ Script []string }
	e.readYAML("gitlab-ci/gitlab-ci.yml", &jobs)
	script := e.addBlock(strings.Join(jobs["me"].Script, "\n"))
	e.more = []string{"VAULT_TOKEN=", "VAULT_ID_TOKEN=" + e.jwt(claims)}
	e.requireCallsAPIConnect(script)

	claims["ref_protected"] = "false"
	e.more = []string{"VAULT_TOKEN=", "VAULT_ID_TOKEN=" + e.jwt(claims)}
	if said, err := e.run(script); err == nil || !strings.Contains(said, "error validating claims") {
		t.Errorf("a job of a branch that is not protected says %s", e.scrub(said))
	}
}

// TestExampleCI_gitLabIsSound holds the file against GitLab's schema, which the tool
// has.
func TestExampleCI_gitLabIsSound(t *testing.T) {
	t.Parallel()
	tool := builtTool(t, "GITLAB_CI_LOCAL")
	// The tool writes beside the file.
	dir := newDir(t)
	if err := os.CopyFS(dir, os.DirFS("../../examples/ci/gitlab-ci")); err != nil {
		t.Fatal(err)
	}
	list := exec.Command(tool, "--file", "gitlab-ci.yml", "--list")
	list.Dir = dir
	said, err := list.CombinedOutput()
	if err != nil || !strings.Contains(string(said), "json schema validated") {
		t.Errorf("%v\n%s", err, said)
	}
}

func TestExampleCI_jenkins(t *testing.T) {
	t.Parallel()
	needs(t, "curl", "curl", "--version")
	e := newCIExample(t)
	e.mustRun(ciJenkins)
	pipeline, err := os.ReadFile(filepath.Join(e.dir, "jenkins/Jenkinsfile"))
	e.check(err)
	_, script, _ := strings.Cut(string(pipeline), "sh '''")
	script, _, found := strings.Cut(script, "'''")
	if !found {
		t.Fatal("the pipeline has no shell script")
	}
	made := e.write("auth/approle/role/apic-us-south/secret-id", nil)
	role := e.read("auth/approle/role/apic-us-south/role-id")
	login, err := e.client.Logical().Write("auth/approle/login", map[string]any{
		"role_id": role.Data["role_id"], "secret_id": made.Data["secret_id"],
	})
	e.check(err)
	e.more = []string{"VAULT_TOKEN=" + login.Auth.ClientToken}
	e.requireCallsAPIConnect(e.addBlock(script))
}

// TestExampleCI_tekton has the method jwt where the method kubernetes would be,
// which asks a cluster and takes the same login.
func TestExampleCI_tekton(t *testing.T) {
	t.Parallel()
	needs(t, "curl", "curl", "--version")
	e := newCIExample(t)
	var task struct {
		Spec struct{ Steps []struct{ Script string } }
	}
	e.readYAML("tekton/task.yaml", &task)
	script := task.Spec.Steps[0].Script
	const mounted = "/var/run/vault/jwt"
	if !strings.Contains(script, mounted) {
		t.Fatalf("the script does not read %s", mounted)
	}
	const issuer = "https://kubernetes.default.svc"
	e.mustCLI("auth", "enable", "-path=kubernetes", "jwt")
	e.mustCLI("write", "auth/kubernetes/config", "jwt_validation_pubkeys=@"+e.path("issuer.pem"), "bound_issuer="+issuer)
	e.mustCLI("write", "auth/kubernetes/role/apic-us-south", "role_type=jwt", "user_claim=sub", "bound_subject=apic",
		"bound_audiences=vault", "token_policies=apic-us-south")
	jwt := e.jwt(map[string]any{"iss": issuer, "aud": "vault", "sub": "apic"})
	e.check(os.WriteFile(e.path("service-account-jwt"), []byte(jwt), 0o600))
	e.requireCallsAPIConnect(e.addBlock(strings.ReplaceAll(script, mounted, e.path("service-account-jwt"))))
}

func TestExampleCI_tektonIsSound(t *testing.T) {
	t.Parallel()
	lint := exec.Command(builtTool(t, "TEKTON_LINT"), "--max-warnings", "0", "../../examples/ci/tekton/task.yaml")
	if said, err := lint.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, said)
	}
}

// ciExample is examples/ci with the key of an issuer that vouches for its jobs.
type ciExample struct {
	*example
	issuerKey *rsa.PrivateKey
}

// newCIExample has the policy, a key to sign an issuer's JWTs with, and no Vault
// token for the jobs.
func newCIExample(t *testing.T) *ciExample {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	e := &ciExample{example: newExample(t, "ci", ciBlocks), issuerKey: key}
	e.mustRun(ciPolicy)
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	e.check(err)
	e.check(os.WriteFile(e.path("issuer.pem"), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), 0o600))
	return e
}

// trustIssuer has Vault check JWTs with the test's key, rather than ask the issuer
// that a block of the README names for its keys.
func (e *ciExample) trustIssuer(block int, issuer string) {
	e.Helper()
	old := "oidc_discovery_url=" + issuer
	if !strings.Contains(e.blocks[block], old) {
		e.Fatalf("the README does not say %s", old)
	}
	e.blocks[block] = strings.Replace(e.blocks[block], old, "jwt_validation_pubkeys=@"+e.path("issuer.pem"), 1)
}

func (e *ciExample) readYAML(name string, into any) {
	e.Helper()
	text, err := os.ReadFile(filepath.Join(e.dir, name))
	e.check(err)
	e.check(yaml.Unmarshal(text, into))
}

// requireCallsAPIConnect runs a block without the root token, unless the block has
// another, and fails unless the API manager accepted the token that it was called with.
func (e *ciExample) requireCallsAPIConnect(block int) {
	e.Helper()
	if !strings.Contains(strings.Join(e.more, " "), "VAULT_TOKEN=") {
		e.more = append(e.more, "VAULT_TOKEN=")
	}
	said := e.mustRun(block)
	if !strings.Contains(said, "token_id") {
		e.Errorf("the API manager answered %s", e.scrub(said))
	}
	e.requireAccepted(1)
	// GitHub takes these lines out of the log, and the values in them.
	said = regexp.MustCompile(`(?m)^::add-mask::.*$`).ReplaceAllString(said, "")
	e.requireDiscreet(said)
}

// jwt signs claims as of now, for five minutes.
func (e *ciExample) jwt(claims map[string]any) string {
	e.Helper()
	now := time.Now()
	claims["iat"], claims["nbf"], claims["exp"] = now.Unix(), now.Unix(), now.Add(5*time.Minute).Unix()
	payload, err := json.Marshal(claims)
	e.check(err)
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(`{"typ":"JWT","alg":"RS256"}`)) + "." + encode(payload)
	digest := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(nil, e.issuerKey, crypto.SHA256, digest[:])
	e.check(err)
	return signed + "." + encode(signature)
}
