"""The profile that a Prefect server keeps: a block whose form is the profile itself."""

from __future__ import annotations

from typing import ClassVar

from prefect.blocks.core import Block
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import BlockDocumentCreate, BlockDocumentUpdate
from prefect.client.schemas.objects import BlockDocument
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.utilities.slugify import slugify
from pydantic import ConfigDict, ValidationError

from hpc_bridge.errors import SiteError
from hpc_bridge.jobs.spec import explain
from hpc_bridge.sites.profile import FORMAT, SiteProfile


class SiteProfileBlock(Block, SiteProfile):
    """A cluster's profile, with all of its fields.

    It is read by this package as data, not as a block, so that one of a newer version is told
    apart from a broken one.
    """

    model_config = ConfigDict(extra="ignore", frozen=False)

    _block_type_name: ClassVar[str] = "HPC Site Profile"
    _block_type_slug: ClassVar[str] = "hpc-site-profile"
    _description: ClassVar[str] = (
        "Describes an HPC cluster. Publish a new version with: hpc-bridge site publish FILE"
    )


async def read_published(
    client: PrefectClient, name: str, *, broken_ok: bool = False
) -> SiteProfile | None:
    """The profile of that name; None when the server has none.

    Raises SiteError for one that is newer than this version reads, or broken, which is as good as
    none when ``broken_ok``.
    """
    document = await _document(client, name)
    if document is None or document.data.get("name") != name:
        return None
    try:
        return _profile(document, client)
    except ValidationError as error:
        if broken_ok:
            return None
        lines = explain(error, SiteProfile).splitlines()
        broken = f"{_place(name, client)} is broken; publish it again:"
        raise SiteError("\n".join([broken, *lines])) from None


async def published_names(client: PrefectClient) -> list[str]:
    """The names of all that the server has, those that cannot be read included."""
    names: list[str] = []
    page = 200
    try:
        while True:
            documents = await client.read_block_documents_by_type(
                SiteProfileBlock.get_block_type_slug(), offset=len(names), limit=page
            )
            names += [str(document.data.get("name", document.name)) for document in documents]
            if len(documents) < page:
                return sorted(names)
    except PrefectHTTPStatusError as error:
        if error.response.status_code == 404:  # no profile was ever published
            return []
        raise


async def write_published(client: PrefectClient, profile: SiteProfile) -> None:
    """Make or replace the block. Raises SiteError when another site has its place."""
    await check_free(client, profile.name)
    await SiteProfileBlock.aregister_type_and_schema(client=client)
    schema, kind = SiteProfileBlock._block_schema_id, SiteProfileBlock._block_type_id
    document, data = await _document(client, profile.name), profile.model_dump(mode="json")
    if schema is None or kind is None:
        raise SiteError("the server has not registered the block type of site profiles")
    if document is None:
        new = BlockDocumentCreate(
            name=slugify(profile.name), data=data, block_schema_id=schema, block_type_id=kind
        )
        await client.create_block_document(new)
        return
    replacement = BlockDocumentUpdate(block_schema_id=schema, data=data, merge_existing_data=False)
    await client.update_block_document(document.id, replacement)


async def delete_published(client: PrefectClient, name: str) -> None:
    """Remove the block, if there is one of that site."""
    document = await _document(client, name)
    if document is not None and document.data.get("name") == name:
        await client.delete_block_document(document.id)


async def check_free(client: PrefectClient, name: str) -> None:
    """Raise SiteError when a site whose name differs by case or punctuation only is published.

    Names of blocks are lower-case letters, digits and dashes.
    """
    document = await _document(client, name)
    if document is not None and (other := document.data.get("name")) != name:
        raise SiteError(
            f"the block {document.name!r} on {address(client)} is of another site, {other!r};"
            f" unpublish it, or rename {name!r}"
        )


async def is_published(client: PrefectClient, name: str) -> bool:
    """Whether there is a profile of that name, readable or not."""
    document = await _document(client, name)
    return document is not None and document.data.get("name") == name


async def _document(client: PrefectClient, name: str) -> BlockDocument | None:
    try:
        return await client.read_block_document_by_name(
            slugify(name), SiteProfileBlock.get_block_type_slug()
        )
    except ObjectNotFound:
        return None


def _profile(document: BlockDocument, client: PrefectClient) -> SiteProfile:
    written = document.data.get("format")
    if isinstance(written, int) and written > FORMAT:
        raise SiteError(
            f"{_place(document.data['name'], client)} has format {written}, newer than this version"
            f" of hpc-bridge reads ({FORMAT}); upgrade hpc-bridge"
        )
    return SiteProfile.model_validate(document.data)


def _place(name: str, client: PrefectClient) -> str:
    return f"the profile of site {name!r} published on {address(client)}"


def address(client: PrefectClient) -> str:
    """The server's, as people set it."""
    return str(client.api_url).rstrip("/")
