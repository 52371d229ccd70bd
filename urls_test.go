// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"unicode"
)

func TestURL_hostsThatAreAccepted(t *testing.T) {
	for _, raw := range []string{
		"https://a", "https://login.service.us-south.apiconnect.ibmcloud.com/apikey", "https://LOGIN.example:8443/a/b%20c/@(d)",
		"https://xn--mnchen-3ya.example", "https://9.example", "https://1.2.3.4.example", "https://192.0.2.1:65535", "https://[2001:db8::1]:1/",
		"https://" + strings.Repeat("a", 63) + ".example", "https://" + strings.Repeat("a.", 126) + "a",
		"http://localhost:8080/", "http://127.0.0.1", "http://127.9.9.9:1/x", "http://[::1]/", "https://a.0xyz",
	} {
		if err := checkURL(raw); err != nil {
			t.Errorf("%s %v", raw, err)
		}
	}
}

func TestURL_whatIsRefused(t *testing.T) {
	const (
		host     = "must have a DNS name or an IP address"
		ipv6     = "must have an IPv6 address"
		noHost   = "must be a URL with a host"
		port     = "must have a port"
		bare     = "must be a URL without query or fragment"
		userInfo = "must be a URL without user info"
		odd      = "has characters that a URL cannot have"
		https    = "must be an https URL"
	)
	for raw, want := range map[string]string{
		"https://a_b.example": host, "https://a..example": host, "https://a.example.": host, "https://.a": host, "https://-a.example": host,
		"https://a-.example": host, "https://" + strings.Repeat("a", 64) + ".example": host, "https://" + strings.Repeat("a.", 127) + "a": host,
		"https://127.1": host, "https://2130706433": host, "https://0x7f.0x1": host, "https://0x7f000001": host, "https://1.2.3.4.5": host,
		"https://1.2.3.256": host, "https://a,b": host, "https://a*.example": host, "https://%ff.example": host, "https://%e2%84%aa.example": host,
		"https://[::1%25lo]": ipv6, "https://[::1%25%6c%6f]:1/": ipv6, "https://[1.2.3.4]": noHost, "https://[a]": noHost,
		"https://%61.example": noHost, "https://%25.example": host, "https:///a": noHost, "https:a": noHost, "https://": noHost, "//": noHost,
		"https://:1": host, "https://::1": noHost, "https://2001:db8::1": noHost, "https://a:b": noHost, "https://[::1]b": noHost, "https://a/%zz": noHost,
		"https://a:": port, "https://[::1]:": port, "https://a:0": port, "https://a:65536": port, "https://a:99999999999999999999": port,
		"https://a?": bare, "https://a?b": bare, "https://a#": bare, "https://a/#b": bare, "https://a#@b": bare,
		"https://u@a": userInfo, "https://u:p@a": userInfo, "https://@a": userInfo, "https://:@a": userInfo,
		"https://a b": odd, " https://a": odd, "https://a\n": odd, "https://a\x00": odd, "https://a\\@b": odd, "https://münchen.example": odd,
		"https://a\u3002example": odd, "https://a\xff": odd, "https://a/\"": odd, "https://a/<b>": odd, "https://a/{b}|`c`^": odd,
		"http://a": https, "http://127.0.0.1.example": https, "http://localhost.": host, "http://LOCALHOST": https, "http://localhost.example": https,
		"http://128.0.0.1": https, "http://[::2]": https, "ftp://a": https, "HTTPS://a": https, "//a": https,
		"https://a/" + strings.Repeat("b", maxURLLength): "is too long",
	} {
		if err := checkURL(raw); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%.80q: %v, want %q", raw, err, want)
		}
	}
}

func TestURL_originHasNoPath(t *testing.T) {
	for raw, want := range map[string]string{
		"": "", "https://iam.example": "https://iam.example", "https://iam.example:8443/": "https://iam.example:8443",
	} {
		if got, err := parseOrigin(raw); got != want || err != nil {
			t.Errorf("%q became %q: %v", raw, got, err)
		}
	}
	for _, raw := range []string{"https://iam.example/v1", "https://iam.example//", "https://iam.example/%2F", "https://iam.example/.", "/", "https://"} {
		if got, err := parseOrigin(raw); err == nil || got != "" {
			t.Errorf("%q became %q", raw, got)
		}
	}
}

func FuzzCheckURL(f *testing.F) {
	for _, seed := range []string{
		"https://a.example", "http://localhost:1/", "http://[::1]/", "http://127.0.0.1.example", "https://u@h", "https://h#f",
		"HTTP://LOCALHOST", "//h", "https:h", "http://127.1/", "http://2130706433/", "http://localhost.@x/", "https://%ff.example",
		"https://[fe80::1%25eth0]:1", "https://a:/", "https://a/%ff/..//@:b", "https://a?", "https://::1", "https://[::ffff:127.0.0.1]",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		err := checkURL(raw)
		if err != nil {
			if len(raw) > 20 && strings.Contains(err.Error(), raw) {
				t.Fatal("the error quotes the URL")
			}
			return
		}
		if raw == "" {
			return
		}
		requireSoundURL(t, raw)
		if origin, err := parseOrigin(raw); err == nil {
			requireSoundURL(t, origin+"/identity/token")
		}
	})
}

// requireSoundURL holds what the rest of the engine relies on.
func requireSoundURL(t *testing.T, raw string) {
	t.Helper()
	if strings.ContainsFunc(raw, func(r rune) bool { return r > unicode.MaxASCII || !unicode.IsPrint(r) || r == ' ' }) {
		t.Fatal("it has characters that do not print")
	}
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	if u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.Opaque != "" {
		t.Fatal("it has more than a scheme, a host and a path")
	}
	addr, err := netip.ParseAddr(u.Hostname())
	if isAddress := err == nil; isAddress && addr.Zone() != "" || !isAddress && !isDNSName(u.Hostname()) {
		t.Fatal("its host is neither an address nor a name")
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(u.Hostname())) {
		t.Fatalf("its scheme is %s", u.Scheme)
	}
	request, err := http.NewRequest(http.MethodGet, raw, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(raw, "://")
	if host, _, _ := strings.Cut(after, "/"); request.Host != host || request.URL.Host != host {
		t.Fatal("a request goes to another host")
	}
}
