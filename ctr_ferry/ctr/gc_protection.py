"""Protection from garbage collection, for the blobs of images that come to a host and have no name yet. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ctr_ferry import shell
from ctr_ferry.ctr import ingest, methods, templates
from ctr_ferry.ctr.gc_root import Root, finish, finish_ingests
from ctr_ferry.ctr.ingest import ImageBlobs, Store
from ctr_ferry.ctr.place import Place
from ctr_ferry.ctr.templates import fill
from ctr_ferry.oci.descriptor import Descriptor
from ctr_ferry.shell import Script

ALL_NAMED = b"named\n"  # the line on stdin that ends a protection whose images all have their names


def protect(place: Place, images: Sequence[ImageBlobs], store: Store) -> Script:
    """Builds the script that protects the blobs of images until its stdin ends.

    Its steps are ``prepare-N`` for each image, then ``wait``. A step ``prepare-N`` makes a root that protects all
    blobs of the image before they are there, takes in the documents, and links what other namespaces have. It prints
    the digests of blobs that could not be linked (containerd's ``content_sharing_policy`` may be "isolated"). The
    clean-up removes the roots if stdin said `ALL_NAMED`, and takes their labels off if not. It also takes off labels
    of expired runs, and finishes ingests of this run and of expired ones: with an empty regular file as stdin, an
    ingest is committed as it is, and the next collection takes it.
    """
    roots = [Root(place, image.blobs, number) for number, image in enumerate(images)]
    steps = {
        f"prepare-{root.number}": _prepare(place, image, root, store) for image, root in zip(images, roots, strict=True)
    }
    empty = methods.empty_file(place.owner)
    cleanup = f"{_release(place, roots, store)}\n{empty.cleanup}"
    return Script({**steps, "wait": "read -r named"}, empty.text, cleanup=cleanup)


def _prepare(place: Place, image: ImageBlobs, root: Root, store: Store) -> str:
    taken = [_take_in(place, blob, image, store) for blob in image.blobs]
    chain = " &&\n".join(filter(None, [root.prepare(), *taken]))
    return f"{{ {chain}; }} </dev/null"


def _take_in(place: Place, blob: Descriptor, image: ImageBlobs, store: Store) -> str:
    """Takes in one blob that need not be sent; empty for a blob that is there, or is yet to be sent."""
    if blob.digest in store.here:
        return ""
    taken, document = "", image.documents.get(blob.digest)
    if document is not None:
        taken = f"{shell.printf(document)} | {ingest.ingest_stdin(place, blob)}"
    if blob.digest in store.elsewhere:
        return f"{{ {methods.ingest_link(place, blob)} || {taken or f'echo {blob.digest}'}; }}"
    return taken


def _release(place: Place, roots: Sequence[Root], store: Store) -> str:
    ctr, namespace = place.ctr.bounded, place.namespace
    old = [ctr.label(namespace, digest, *(f"{key}=" for key in keys)) for digest, keys in store.labels.items()]
    old += [finish(place, shell.join([key])) for key in store.ingests]
    return fill(
        templates.RELEASE_ROOTS,
        # The end of an import, also of a broken one, starts a collection, which must find the blobs still labelled.
        pause='[ -n "$named" ] || sleep 3' if place.ctr.capabilities.slow_ingest else ":",
        ask=ctr.line(namespace, "content", "active"),
        remove="\n".join(root.remove() for root in roots),
        release="\n".join(root.release() for root in roots),
        finish=finish_ingests(place),
        old="\n".join(old),
    )
