// Copyright (c) The vault-plugin-secrets-apic authors
// SPDX-License-Identifier: MPL-2.0

// Command image makes the container image of a release from its archives: one layer with CA
// certificates, which are Mozilla's as Go's x509roots has them, and one with the plugin, for each platform.
// The same archives give the same bytes.
//
// It writes two files beside the archives: <name>_<version>_image.tar, an OCI layout, and
// <name>_<version>_image.json, the image's index, whose SHA-256 is the image's digest.
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

const plugin = "vault-plugin-secrets-apic"

// architectures of the image, all on Linux, which is where Vault runs containers.
func architectures() []string { return []string{"amd64", "arm64"} }

// release says which archives the image is made of and what its labels tell.
type release struct {
	dist, version, commit, source string
	created                       time.Time
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	var r release
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	flags.StringVar(&r.dist, "dist", "dist", "`directory` of the archives")
	flags.StringVar(&r.version, "version", "", "version of the release")
	flags.StringVar(&r.commit, "commit", "", "commit of the release")
	flags.StringVar(&r.source, "source", "", "URL of the source repository")
	created := flags.String("created", "", "time of the commit, in RFC 3339")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var err error
	if r.created, err = time.Parse(time.RFC3339, *created); err != nil {
		return err
	}
	index, err := r.index()
	if err != nil {
		return err
	}
	return r.write(index)
}

// file is the path of one of the release's files, which have all the same beginning.
func (r release) file(rest string) string {
	return filepath.Join(r.dist, plugin+"_"+r.version+"_"+rest)
}

func (r release) index() (v1.ImageIndex, error) {
	certificates, err := certificateLayer()
	if err != nil {
		return nil, err
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, architecture := range architectures() {
		image, err := r.image(architecture, certificates)
		if err != nil {
			return nil, fmt.Errorf("linux/%s: %w", architecture, err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add:        plainImage{image},
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: architecture}},
		})
	}
	return mutate.Annotations(index, r.labels()).(v1.ImageIndex), nil
}

// plainImage keeps the library from naming an artifact type in the index, which is for what is not an image.
type plainImage struct{ v1.Image }

func (plainImage) ArtifactType() (string, error) { return "", nil }

func (r release) labels() map[string]string {
	return map[string]string{
		"org.opencontainers.image.title":    plugin,
		"org.opencontainers.image.version":  r.version,
		"org.opencontainers.image.revision": r.commit,
		"org.opencontainers.image.created":  r.created.Format(time.RFC3339),
		"org.opencontainers.image.source":   r.source,
		"org.opencontainers.image.licenses": "MPL-2.0",
	}
}

func (r release) image(architecture string, certificates v1.Layer) (v1.Image, error) {
	binary, err := archived(r.file("linux_"+architecture+".tar.gz"), plugin)
	if err != nil {
		return nil, err
	}
	program, err := layer([]tar.Header{{Name: plugin, Mode: 0o755, Size: int64(len(binary)), ModTime: r.created}}, binary)
	if err != nil {
		return nil, err
	}
	base := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	base = mutate.ConfigMediaType(base, types.OCIConfigJSON)
	created := v1.Time{Time: r.created}
	image, err := mutate.Append(base,
		mutate.Addendum{Layer: certificates, History: v1.History{Created: created, CreatedBy: "CA certificates"}},
		mutate.Addendum{Layer: program, History: v1.History{Created: created, CreatedBy: "the release's binary"}},
	)
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = "linux", architecture, created
	// No user: Vault runs plugin containers as root unless it is told otherwise, and Kubernetes runs
	// init containers as the pod's user.
	config.Config = v1.Config{Entrypoint: []string{"/" + plugin}, Labels: r.labels()}
	return mutate.ConfigFile(image, config)
}

// archived returns the content of the file with this base name in an archive.
func archived(path, base string) ([]byte, error) {
	archive, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer archive.Close()
	unzipped, err := gzip.NewReader(archive)
	if err != nil {
		return nil, err
	}
	for files := tar.NewReader(unzipped); ; {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%s has no %s", path, base)
		}
		if err != nil {
			return nil, err
		}
		if header.Typeflag == tar.TypeReg && filepath.Base(header.Name) == base {
			return io.ReadAll(files)
		}
	}
}

// certificateLayer has the certificates where Go and most other programs look for them. Its files have
// no time, so that releases share it until the certificates change. A root that is trusted for
// certificates up to a day alone is left out, because the file cannot say so.
func certificateLayer() (v1.Layer, error) {
	var certificates bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint != nil {
			continue
		}
		if err := pem.Encode(&certificates, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}); err != nil {
			return nil, err
		}
	}
	var headers []tar.Header
	for _, directory := range []string{"etc/", "etc/ssl/", "etc/ssl/certs/"} {
		headers = append(headers, tar.Header{Typeflag: tar.TypeDir, Name: directory, Mode: 0o755, ModTime: time.Unix(0, 0)})
	}
	headers = append(headers, tar.Header{
		Name: "etc/ssl/certs/ca-certificates.crt", Mode: 0o644, Size: int64(certificates.Len()), ModTime: time.Unix(0, 0),
	})
	return layer(headers, certificates.Bytes())
}

// layer has these entries, of which the last is a file with the content.
func layer(headers []tar.Header, content []byte) (v1.Layer, error) {
	var entries bytes.Buffer
	archive := tar.NewWriter(&entries)
	for i := range headers {
		headers[i].Format = tar.FormatUSTAR
		if err := archive.WriteHeader(&headers[i]); err != nil {
			return nil, err
		}
	}
	if _, err := archive.Write(content); err != nil {
		return nil, err
	}
	if err := archive.Close(); err != nil {
		return nil, err
	}
	opener := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(entries.Bytes())), nil }
	return tarball.LayerFromOpener(opener,
		tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(gzip.BestCompression), tarball.WithCompressedCaching)
}

// write leaves the index by itself, and all of it in an archive.
func (r release) write(index v1.ImageIndex) error {
	manifest, err := index.RawManifest()
	if err != nil {
		return err
	}
	directory, err := os.MkdirTemp("", "apic-image-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(directory)
	path, err := layout.Write(directory, empty.Index)
	if err != nil {
		return err
	}
	name := map[string]string{"org.opencontainers.image.ref.name": r.version}
	if err := path.AppendIndex(index, layout.WithAnnotations(name)); err != nil {
		return err
	}
	if err := r.pack(directory, r.file("image.tar")); err != nil {
		return err
	}
	return os.WriteFile(r.file("image.json"), manifest, 0o644)
}

// pack writes an archive of a directory, in the order of the names and without anything of this machine.
func (r release) pack(directory, target string) error {
	file, err := os.Create(target)
	if err != nil {
		return err
	}
	defer file.Close()
	archive := tar.NewWriter(file)
	err = filepath.WalkDir(directory, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == directory {
			return err
		}
		name, err := filepath.Rel(directory, path)
		if err != nil {
			return err
		}
		header := tar.Header{Name: filepath.ToSlash(name), Mode: 0o644, ModTime: r.created, Format: tar.FormatUSTAR}
		if entry.IsDir() {
			header.Typeflag, header.Name, header.Mode = tar.TypeDir, header.Name+"/", 0o755
			return archive.WriteHeader(&header)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		header.Size = int64(len(content))
		if err := archive.WriteHeader(&header); err != nil {
			return err
		}
		_, err = archive.Write(content)
		return err
	})
	if err != nil {
		return err
	}
	if err := archive.Close(); err != nil {
		return err
	}
	return file.Close()
}
