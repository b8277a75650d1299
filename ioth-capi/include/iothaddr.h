/* iothaddr.h - IPv6 and MAC addresses made of names: hash and one-time addresses.
 * Documentation: iothaddr(3). SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef IOTHADDR_H
#define IOTHADDR_H

#include <stdint.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The usual length of a one-time address' time step, in seconds. */
#define IOTHADDR_OTIP_PERIOD 32

/* addr is a struct in6_addr or 16 bytes: the base address, replaced by the result. mac is 6 bytes. */
int iothaddr_hash(void *addr, const char *name, const char *passwd, uint32_t otiptime);
uint32_t iothaddr_otiptime(int otip_period, int otip_offset);
int iothaddr_hashmac(void *mac, const char *name, const char *passwd);
int iothaddr_eui64(void *addr, const void *mac);
int iothaddr_hasheui64(void *addr, const char *name, const char *passwd);

#ifdef __cplusplus
}
#endif

#endif
