// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

package apic

import (
	"errors"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"unicode"
)

const (
	maxURLLength = 2048

	// maxHostLength is that of DNS names, written without the dot of the root (RFC
	// 1035, 2.3.4).
	maxHostLength = 253
)

// checkURL accepts https URLs, and http ones of a loopback host, where no network
// can listen in; and an empty text, which is a default. Its errors never quote the
// URL.
func checkURL(raw string) error {
	if raw == "" {
		return nil
	}
	_, err := parseURL(raw)
	return err
}

// parseOrigin is checkURL for a URL without a path. It drops the slash that may
// stand in its place.
func parseOrigin(raw string) (string, error) {
	if raw == "" {
		return "", nil
	}
	u, err := parseURL(raw)
	if err != nil {
		return "", err
	}
	if u.Path != "" && u.Path != "/" {
		return "", errors.New("must be a URL without a path, such as https://host.example")
	}
	return strings.TrimSuffix(raw, "/"), nil
}

// parseURL looks at the text before it parses it, because a bare '#' is not to be
// seen any more afterwards.
func parseURL(raw string) (*url.URL, error) {
	switch {
	case len(raw) > maxURLLength:
		return nil, errors.New("is too long for a URL")
	case strings.ContainsAny(raw, "?#"):
		return nil, errors.New("must be a URL without query or fragment")
	case strings.ContainsFunc(raw, notInURL):
		return nil, errors.New("has characters that a URL cannot have; in its path write them as %XX, in its host use the ASCII form of an international name (xn--...)")
	}
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return nil, errors.New("must be a URL with a host, such as https://host.example/path")
	}
	if u.User != nil {
		return nil, errors.New("must be a URL without user info")
	}
	if err := checkHost(u); err != nil {
		return nil, err
	}
	if strings.HasPrefix(raw, "https://") || strings.HasPrefix(raw, "http://") && isLoopback(u.Hostname()) {
		return u, nil
	}
	return nil, errors.New("must be an https URL; http is accepted for a loopback host only")
}

// notInURL says that a character stands in no URL without query and fragment (RFC
// 3986, 2.2 and 2.3), whose escapes begin with '%'.
func notInURL(r rune) bool {
	return r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("-._~:/[]@!$&'()*+,;=%", r)
}

// checkHost accepts DNS names and IP addresses, with a port or without.
func checkHost(u *url.URL) error {
	if port := u.Port(); port != "" || strings.HasSuffix(u.Host, ":") {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return errors.New("must have a port from 1 to 65535, or none")
		}
	}
	addr, err := netip.ParseAddr(u.Hostname())
	if strings.HasPrefix(u.Host, "[") {
		if err != nil || !addr.Is6() || addr.Zone() != "" {
			return errors.New("must have an IPv6 address without a zone between the brackets")
		}
		return nil
	}
	if err == nil && addr.Is4() || isDNSName(u.Hostname()) {
		return nil
	}
	return errors.New("must have a DNS name or an IP address as its host; an international name must be in its ASCII form (xn--...)")
}

var (
	hostLabel   = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)
	numberLabel = regexp.MustCompile(`^([0-9]+|0[xX][0-9A-Fa-f]*)$`)
)

// isDNSName says whether a host is a name that DNS can hold (RFC 1123, 2.1) and that
// no resolver takes for an address, as some do with 127.1 and 0x7f000001.
func isDNSName(host string) bool {
	labels := strings.Split(host, ".")
	for _, label := range labels {
		if !hostLabel.MatchString(label) {
			return false
		}
	}
	return len(host) <= maxHostLength && !numberLabel.MatchString(labels[len(labels)-1])
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}
