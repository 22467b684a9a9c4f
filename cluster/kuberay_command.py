"""`bendscape submit kuberay`. Heavy imports wait inside the command, so that help answers at once."""

from __future__ import annotations

from typing import Annotated

import typer

from bendscape.cluster.commands import DryRun, File, RunOptions, StoreOption, Wait, hand_over, job_of
from bendscape.sweep.commands.options import Json


def submit_kuberay(
    file: File,
    image: Annotated[str, typer.Option(help="Image that has bendscape and Ray, from cluster/image.sh.")],
    options: RunOptions = None,
    store: StoreOption = "",
    nodes: Annotated[int | None, typer.Option(help="Worker pods; by default one.")] = None,
    cpus: Annotated[int | None, typer.Option(help="Cores of a worker pod; by default one.")] = None,
    mem: Annotated[str | None, typer.Option(help="Memory of a worker pod; by default 4GiB.")] = None,
    head_mem: Annotated[
        str | None, typer.Option(help="Memory of the pod in which the driver runs; by default 4GiB.")
    ] = None,
    time: Annotated[str, typer.Option(metavar="TIME", help="Stop cleanly within this time, e.g. 8h.")] = "",
    namespace: Annotated[
        str | None, typer.Option(help="Namespace of Kubernetes; by default `default`.")
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Secret whose keys become environment variables, such as "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
        ),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Environment variable that is no secret."),
    ] = None,
    claim: Annotated[
        str | None,
        typer.Option(
            metavar="NAME:/PATH", help="Claim of a volume that all pods may write, and where to mount it."
        ),
    ] = None,
    service_account: Annotated[
        str | None, typer.Option(help="Service account of the pods, where a cloud's roles come with it.")
    ] = None,
    pull_secret: Annotated[str | None, typer.Option(help="Secret of the registry of the image.")] = None,
    priority_class: Annotated[str | None, typer.Option(help="Priority class of the pods.")] = None,
    node_label: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Only on nodes with this label.")
    ] = None,
    retries: Annotated[
        int | None, typer.Option(help="New clusters after the first one has failed; by default 2.")
    ] = None,
    grace: Annotated[
        str, typer.Option(metavar="TIME", help="Time that tasks under way have when a pod must go.")
    ] = "5min",
    keep: Annotated[
        str, typer.Option(metavar="TIME", help="How long the cluster, with its logs, outlives its job.")
    ] = "10min",
    dry_run: DryRun = False,
    wait: Wait = False,
    json: Json = False,
) -> None:
    """Run a campaign on Kubernetes: as a RayJob of the KubeRay operator, by means of `kubectl`.

    What is created is checked here, before, against KubeRay's own definition; --dry-run prints it.
    """
    from bendscape.cluster.place import place
    from bendscape.sweep.commands.options import seconds_of

    parameters = {
        "image": image, "nodes": nodes, "cpus": cpus, "mem": mem, "head_mem": head_mem,
        "namespace": namespace, "secrets": secret and tuple(secret), "env": env and tuple(env),
        "claim": claim, "service_account": service_account, "pull_secret": pull_secret,
        "priority_class": priority_class, "node_labels": node_label and tuple(node_label), "retries": retries,
        "grace": int(seconds_of("--grace", grace)), "keep": int(seconds_of("--keep", keep)),
    }  # fmt: skip
    job = job_of(file, store, options or (), seconds_of("--time", time) if time else None, rounds=True)
    hand_over(place("kuberay", parameters), job, dry_run=dry_run, wait=wait, json=json)
