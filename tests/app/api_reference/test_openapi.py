"""The OpenAPI document describes the whole REST API, for people and for generated clients."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import BaseModel

from app.web.openapi import TAGS, Schema, operations
from app.web.problems import MEDIA_TYPE
from tests.documented import find_operation, resolved
from worker.core.training.config import TrainConfig

OPERATION_IDS = [
    "addBaseModel",
    "addCaptionModel",
    "addExample",
    "addSweepSeeds",
    "allowLoss",
    "applyCaptionGuesses",
    "applyCaptionProposals",
    "averageCheckpoints",
    "cancelBaseModel",
    "cancelCaptionModel",
    "cancelCaptionOrder",
    "cancelDryRun",
    "cancelEvaluation",
    "cancelGrid",
    "cancelHubImport",
    "cancelImport",
    "cancelPublication",
    "cancelRender",
    "cancelRun",
    "cancelSweep",
    "cancelToolJob",
    "changeAdapter",
    "changeAdapterRender",
    "changeDataset",
    "changeGrid",
    "changeImage",
    "changePerson",
    "changePromptSet",
    "changeRecipe",
    "changeRender",
    "changeRun",
    "changeVersion",
    "checkCaptionModel",
    "checkDataset",
    "chooseWinner",
    "compareAdapters",
    "compareDatasetVersions",
    "compareTwoRuns",
    "compareVersions",
    "continueBlindTest",
    "continueCaptionOrder",
    "continueGrid",
    "correctBaseModel",
    "createDataset",
    "createDryRun",
    "createGrid",
    "createPreset",
    "createPromptSet",
    "createRecipe",
    "createRender",
    "createRun",
    "createSweep",
    "datasetStatistics",
    "deleteAdapter",
    "deleteAdapterForever",
    "deleteAlias",
    "deleteAllCheckpoints",
    "deleteBlindTest",
    "deleteBlindTestForever",
    "deleteCaption",
    "deleteCheckpoint",
    "deleteCheckpointForever",
    "deleteDataset",
    "deleteDatasetForever",
    "deleteDeletedImages",
    "deleteDeletedRenders",
    "deleteDeletedRuns",
    "deleteGrid",
    "deleteGridForever",
    "deleteImage",
    "deleteImageForever",
    "deletePreset",
    "deletePresetForever",
    "deletePromptSet",
    "deletePromptSetForever",
    "deleteRecipe",
    "deleteRecipeForever",
    "deleteRender",
    "deleteRenderForever",
    "deleteRenders",
    "deleteRun",
    "deleteRunCheckpoints",
    "deleteRunForever",
    "deleteSweep",
    "deleteSweepForever",
    "deleteSweepOthers",
    "deleteVersion",
    "deleteVersionForever",
    "discardCaptionProposals",
    "downloadAdapter",
    "downloadFusedBase",
    "downloadOriginal",
    "downloadRenders",
    "duplicateDataset",
    "editImages",
    "endBlindTest",
    "endSession",
    "estimateBlindTest",
    "estimateGrid",
    "estimateSweep",
    "evaluateRun",
    "evaluateWeights",
    "exportDataset",
    "exportDatasetVersion",
    "extractAdapter",
    "fuseAdapter",
    "getAdapter",
    "getBaseModel",
    "getBlindImage",
    "getBlindReference",
    "getBlindResult",
    "getBlindTest",
    "getCaptionModel",
    "getCaptionOrder",
    "getCaptionPreview",
    "getCaptions",
    "getDataset",
    "getDryRun",
    "getEvaluation",
    "getFolders",
    "getGrid",
    "getGridSheet",
    "getHubImport",
    "getImage",
    "getImageFacts",
    "getImport",
    "getJob",
    "getMe",
    "getPerson",
    "getPreset",
    "getPromptSet",
    "getProof",
    "getPublication",
    "getRecipe",
    "getRender",
    "getRun",
    "getRunMetrics",
    "getRunSettings",
    "getSharing",
    "getStorage",
    "getStyleSearch",
    "getSweep",
    "getToolJob",
    "getVersion",
    "healthz",
    "importAdapter",
    "importFromHub",
    "invitePerson",
    "keepCell",
    "keepCheckpoint",
    "keepInFolder",
    "keepRender",
    "listAdapterRenders",
    "listAdapters",
    "listAliases",
    "listBaseModels",
    "listBlindTests",
    "listCaptionGuesses",
    "listCaptionHistory",
    "listCaptionModels",
    "listCaptionProposals",
    "listCaptionProviders",
    "listDatasetEdits",
    "listDatasetVersions",
    "listDatasets",
    "listDeleted",
    "listEvaluations",
    "listGrids",
    "listImages",
    "listJobs",
    "listPeople",
    "listPresets",
    "listPromptSets",
    "listPublications",
    "listRecipes",
    "listRenders",
    "listRunCheckpoints",
    "listRunImages",
    "listRunSamples",
    "listRuns",
    "listSessions",
    "listSimilarToAdapter",
    "listSimilarToDataset",
    "listSimilarToImage",
    "listSubjects",
    "listSweeps",
    "listVersions",
    "mergeAdapters",
    "metrics",
    "nextBlindPair",
    "orderCaptions",
    "orderToolImages",
    "pauseSweep",
    "previewAdapterDeletion",
    "previewAllCheckpointsDeletion",
    "previewBaseModelRemoval",
    "previewBlindTestDeletion",
    "previewCaption",
    "previewCaptionModelRemoval",
    "previewCheckpointDeletion",
    "previewCheckpointsDeletion",
    "previewDatasetDeletion",
    "previewDeletedImagesDeletion",
    "previewDeletedRendersDeletion",
    "previewDeletedRunsDeletion",
    "previewGridDeletion",
    "previewImageDeletion",
    "previewPresetDeletion",
    "previewPromptSetDeletion",
    "previewRecipeDeletion",
    "previewRenderDeletion",
    "previewRendersDeletion",
    "previewRunDeletion",
    "previewSweepDeletion",
    "previewSweepOthersDeletion",
    "previewVersionDeletion",
    "publishAdapter",
    "putCaption",
    "readyz",
    "recallSettings",
    "releaseCheckpoint",
    "removeBaseModel",
    "removeCaptionModel",
    "removeFromFolder",
    "renamePreset",
    "renderRecipe",
    "repeatEvaluation",
    "resetPerson",
    "resizeAdapter",
    "restoreAdapter",
    "restoreBlindTest",
    "restoreCaption",
    "restoreCheckpoint",
    "restoreDataset",
    "restoreGrid",
    "restoreImage",
    "restorePreset",
    "restorePromptSet",
    "restoreRecipe",
    "restoreRender",
    "restoreRun",
    "restoreSweep",
    "restoreVersion",
    "resumeSweep",
    "sampleRun",
    "saveRun",
    "scaleAdapter",
    "searchByImage",
    "setAlias",
    "setSharing",
    "startBlindTest",
    "stopRun",
    "trainVersionAgain",
    "transferThings",
    "undoBlindVote",
    "undoDatasetEdit",
    "uploadImages",
    "uploadSource",
    "useBlindCandidate",
    "useCheckpoint",
    "useSweepConfiguration",
    "voteBlindPair",
    "withdrawLink",
]


@pytest.fixture
def document(app: FastAPI) -> Schema:
    return app.openapi()


def all_operations(document: Schema) -> list[Schema]:
    return [operation for _, _, operation in operations(document)]


def test_operation_ids_stay_because_generated_clients_call_them(document: Schema) -> None:
    found = [operation["operationId"] for operation in all_operations(document)]
    assert sorted(found) == OPERATION_IDS


def test_names_of_schemas_are_words_and_no_paths_of_modules(document: Schema) -> None:
    """Two classes of one name would be told apart by their modules, which clients cannot import."""
    names = document["components"]["schemas"]
    assert [name for name in names if not re.fullmatch(r"(Body_)?[A-Za-z0-9]+", name)] == []


def test_every_operation_has_one_known_tag_and_a_summary(document: Schema) -> None:
    for operation in all_operations(document):
        assert len(operation["tags"]) == 1
        assert operation["tags"][0] in TAGS
        assert 5 < len(operation["summary"]) <= 80, operation["operationId"]
        assert "\n" not in operation["summary"]
    assert {tag["name"] for tag in document["tags"]} == {
        operation["tags"][0] for operation in all_operations(document)
    }


def test_every_parameter_is_described(document: Schema) -> None:
    for operation in all_operations(document):
        for parameter in operation.get("parameters", []):
            about = resolved(document, parameter)
            assert about["description"], (operation["operationId"], about["name"])


def test_every_field_of_a_body_or_an_answer_is_described(document: Schema) -> None:
    bare = [
        f"{name}.{field}"
        for name, schema in document["components"]["schemas"].items()
        for field, about in schema.get("properties", {}).items()
        if not about.get("description")
    ]
    assert bare == []


def test_every_reference_leads_somewhere(document: Schema) -> None:
    def references(part: Any) -> Iterator[str]:
        if isinstance(part, dict):
            if isinstance(part.get("$ref"), str):
                yield part["$ref"]
            for below in part.values():
                yield from references(below)
        elif isinstance(part, list):
            for below in part:
                yield from references(below)

    found = set(references(document))
    assert "#/components/schemas/Problem" in found
    for reference in found:
        place: Any = document
        for name in reference.removeprefix("#/").split("/"):
            place = place[name]


def test_errors_are_problems_with_a_reason_instead_of_fastapi_validation_errors(
    document: Schema,
) -> None:
    assert "HTTPValidationError" not in document["components"]["schemas"]
    for operation in all_operations(document):
        assert operation["responses"]["default"]
        for status, response in operation["responses"].items():
            if status[0] in "45":
                described = resolved(document, response)
                assert list(described["content"]) == [MEDIA_TYPE]
                assert described["description"]


def test_only_what_has_an_id_can_be_missing_and_only_a_body_has_another_type(app: FastAPI) -> None:
    listing = find_operation(app.openapi(), "get", "/api/v1/base-models")
    showing = find_operation(app.openapi(), "get", "/api/v1/base-models/1")
    creating = find_operation(app.openapi(), "post", "/api/v1/datasets")
    assert listing is not None
    assert showing is not None
    assert creating is not None
    always = {"400", "401", "414", "422", "429", "500", "503", "default"}
    assert set(listing["responses"]) == {"200", *always}
    assert set(showing["responses"]) == {"200", "404", *always}
    assert set(creating["responses"]) == {"201", "403", "409", "413", "415", "507", *always}


def test_the_settings_of_a_training_and_the_bounds_of_a_render_are_in_it(document: Schema) -> None:
    schemas = document["components"]["schemas"]
    assert set(schemas["TrainConfig"]["properties"]) == set(TrainConfig.model_fields)
    assert schemas["RunIn"]["properties"]["config"]["$ref"].endswith("/TrainConfig")
    steps, width = (schemas["RenderIn"]["properties"][name] for name in ("steps", "width"))
    assert (steps["minimum"], steps["maximum"]) == (1, 150)
    assert width["anyOf"][0]["multipleOf"] == 8


def test_every_json_body_has_an_example_that_is_valid(document: Schema) -> None:
    models = {model.__name__: model for model in subclasses(BaseModel)}
    bodies = {
        content["schema"]["$ref"].rpartition("/")[2]
        for operation in all_operations(document)
        for media_type, content in operation.get("requestBody", {}).get("content", {}).items()
        if media_type == "application/json"
    }
    assert len(bodies) > 10
    for name in bodies:
        (example,) = document["components"]["schemas"][name]["examples"]
        assert models[name].model_validate(example)


def subclasses(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """The models of the web layer, which are the bodies of its requests."""
    for below in model.__subclasses__():
        if below.__module__.startswith("app.web."):
            yield below
        yield from subclasses(below)


def test_uploads_and_downloads_are_files(app: FastAPI, document: Schema) -> None:
    upload = find_operation(app.openapi(), "post", "/api/v1/datasets/1/images")
    download = find_operation(app.openapi(), "get", "/api/v1/adapters/1/download")
    assert upload is not None
    assert download is not None
    assert list(upload["requestBody"]["content"]) == ["multipart/form-data"]
    files = document["components"]["schemas"]["Body_uploadImages"]["properties"]["files"]
    assert files["type"] == "array"
    assert files["items"]["format"] == "binary"
    assert list(download["responses"]["200"]["content"]) == ["application/octet-stream"]
    assert {"etag", "content-disposition"} <= set(download["responses"]["200"]["headers"])


def test_it_is_served_to_programs(client: TestClient, document: Schema) -> None:
    answer = client.get("/openapi.json")
    assert answer.json() == document
    assert answer.json()["openapi"].startswith("3.1")
