/* iothconf.h - stacks made and configured by strings.
 * Documentation: iothconf(3). SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef IOTHCONF_H
#define IOTHCONF_H

#include <ioth.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What ioth_config returns: the sources that worked. */
#define IOTHCONF_STATIC 1
#define IOTHCONF_ETH 2
#define IOTHCONF_DHCP 4
#define IOTHCONF_DHCPV6 8
#define IOTHCONF_RD 16

int ioth_config(struct ioth *stack, const char *config);
struct ioth *ioth_newstackc(const char *stack_config);
char *ioth_resolvconf(struct ioth *stack, const char *config);

#ifdef __cplusplus
}
#endif

#endif
