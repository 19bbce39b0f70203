// Trains on a dataset, watches the run, generates an image and downloads the adapter.
import createClient from "openapi-fetch";
import type { components, paths } from "./brushwork";

const api = createClient<paths>({ baseUrl: "http://localhost:8188" });

function required<T>(answer: { data?: T; error?: components["schemas"]["Problem"] }): T {
  if (answer.data === undefined) throw new Error(answer.error?.detail ?? "no answer");
  return answer.data;
}

async function ended<T extends { status: string }>(look: () => Promise<T>): Promise<T> {
  for (;;) {
    const job = await look();
    if (["succeeded", "failed", "canceled"].includes(job.status)) return job;
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}

export async function trainAndTry(datasetId: number): Promise<ArrayBuffer> {
  const created = required(
    await api.POST("/api/v1/runs", {
      params: { header: { "Idempotency-Key": crypto.randomUUID() } },
      body: { dataset_id: datasetId, preset: "quick", config: { steps: 20 } },
    }),
  );
  const run = await ended(async () =>
    required(await api.GET("/api/v1/runs/{run_id}", { params: { path: { run_id: created.id } } })),
  );
  if (run.adapter_id == null) throw new Error(run.error ?? run.status);
  const asked = required(
    await api.POST("/api/v1/renders", {
      body: { prompt: "a castle", seed: 7, adapters: [{ id: run.adapter_id, weight: 0.8 }] },
    }),
  );
  const render = await ended(async () =>
    required(
      await api.GET("/api/v1/renders/{render_id}", { params: { path: { render_id: asked.id } } }),
    ),
  );
  console.log(render.images.map((image) => image.url));
  return required(
    await api.GET("/api/v1/adapters/{adapter_id}/download", {
      params: { path: { adapter_id: run.adapter_id }, query: { format: "kohya" } },
      parseAs: "arrayBuffer",
    }),
  );
}
