/* Linked into static builds only, in the place of glibc's own functions of these names.
 *
 * glibc looks names up by what /etc/nsswitch.conf lists. `files` and `dns` are built in; anything else (`myhostname`,
 * `resolve`, `mdns4_minimal`, …) it loads from the node, also into a static program. Such a module brings the node's own
 * glibc with it, and where that is another version the process is aborted: tried with a program of 2.36 on a node
 * of 2.31, at the first look-up. Without modules the built-in services are used, as glibc does where one is not there. */

#include <stddef.h>

void *__libc_dlopen_mode(const char *name, int mode)
{
    (void)name;
    (void)mode;
    return NULL;
}

void *__libc_dlsym(void *map, const char *name)
{
    (void)map;
    (void)name;
    return NULL;
}

void *__libc_dlvsym(void *map, const char *name, const char *version)
{
    (void)map;
    (void)name;
    (void)version;
    return NULL;
}

int __libc_dlclose(void *map)
{
    (void)map;
    return 0;
}
