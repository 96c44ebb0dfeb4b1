/*
 * userfaultfd(2) on guest RAM: what post-copy, restores on demand and checkpoints do alike.
 */
#ifndef VMM_MIGRATION_FAULTS_H
#define VMM_MIGRATION_FAULTS_H

#include <stdint.h>

/* A descriptor with these features (UFFD_FEATURE_*), not blocking. -EINVAL: this kernel has not all of them; other
 * -errno: this process may not have one. Before the sandbox closes. */
int faults_open(uint64_t features);
/* Call touched() for every fault, with the address that was touched, until stop_fd is readable. Confines the thread,
 * which does nothing else. */
void faults_serve(int uffd, int stop_fd, void (*touched)(void *opaque, uint64_t address), void *opaque);

#endif
