#include "fabric/tls_fixture.h"

#include "pki/issue.h"
#include "pki/revoke.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void must(enum tw_code code, const struct tw_error *err)
{
    char text[512];
    if (code == TW_OK)
        return;
    fprintf(stderr, "fixture: %s\n", tw_error_text(err, text, sizeof text));
    abort();
}

struct fixture fixture_open(void)
{
    struct fixture f = {"/tmp/towline-fabric-XXXXXX"};
    if (!mkdtemp(f.folder))
        abort();
    return f;
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *place)
{
    (void)status;
    (void)kind;
    (void)place;
    return remove(path);
}

void fixture_close(struct fixture *f)
{
    nftw(f->folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

void fixture_authority(const struct fixture *f, const char *authority)
{
    char path[128];
    struct tw_error err = {0};
    snprintf(path, sizeof path, "%s/%s", f->folder, authority);
    must(tw_pki_init(path, 30, &err), &err);
}

struct tw_tls_files fixture_issue(const struct fixture *f, const struct fixture_leaf *leaf)
{
    static unsigned number;
    char authority[128], out[128];
    struct tw_tls_files files;
    struct tw_error err = {0};
    const struct tw_pki_leaf l = {
        .role = leaf->role,
        .name = leaf->name,
        .begins_s = leaf->begins_s,
        .ends_s = leaf->begins_s || leaf->ends_s ? leaf->ends_s : 29 * FIXTURE_DAY,
    };
    snprintf(authority, sizeof authority, "%s/%s", f->folder, leaf->authority);
    snprintf(out, sizeof out, "%s/leaf-%u", f->folder, number++);
    must(tw_pki_issue(authority, out, &l, &err), &err);
    must(tw_tls_files_in(out, &files, &err), &err);
    if (leaf->trusts) {
        snprintf(files.ca, sizeof files.ca, "%s/%s/%s", f->folder, leaf->trusts, TW_PKI_CA_FILE);
        snprintf(files.crl, sizeof files.crl, "%s/%s/%s", f->folder, leaf->trusts,
                 TW_PKI_LIST_FILE);
    }
    return files;
}

struct tw_tls *fixture_tls(const struct fixture *f, const struct fixture_leaf *leaf)
{
    struct tw_tls *tls;
    struct tw_error err = {0};
    const struct tw_tls_files files = fixture_issue(f, leaf);
    must(tw_tls_open(&files, &tls, &err), &err);
    return tls;
}

void fixture_revoke(const struct fixture *f, const char *authority, const char *certificate,
                    const struct tw_tls_files *reader)
{
    char folder[128], place[128];
    unsigned revoked;
    struct tw_error err = {0};
    snprintf(folder, sizeof folder, "%s/%s", f->folder, authority);
    must(tw_pki_revoke(folder, certificate, &revoked, &err), &err);
    snprintf(place, sizeof place, "%s", reader->ca);
    *strrchr(place, '/') = 0;
    if (unlink(reader->crl))
        abort();
    must(tw_pki_list_copy(folder, place, &err), &err);
}

void fixture_replace(const struct tw_tls_files *old, const struct tw_tls_files *with)
{
    if (rename(with->ca, old->ca) || rename(with->certificate, old->certificate) ||
        rename(with->key, old->key) || rename(with->crl, old->crl))
        abort();
}
