// Runs Lighthouse on addresses in one browser, and prints a line of JSON for each of them:
// node lighthouse.mjs FOLDER CHROMIUM FORM THEME CATEGORIES ADDRESS...
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [folder, chromium, form, theme, categories, ...addresses] = process.argv.slice(2);
const installed = createRequire(pathToFileURL(`${folder}/package.json`));
const bring = (name) => import(pathToFileURL(installed.resolve(name)));
const { default: lighthouse, desktopConfig } = await bring("lighthouse");
const { launch } = await bring("chrome-launcher");

const flags = [
  "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu",
  `--blink-settings=preferredColorScheme=${theme === "dark" ? 0 : 1}`,
];
const chrome = await launch({ chromePath: chromium, chromeFlags: flags });
try {
  for (const address of addresses) {
    const options = { port: chrome.port, logLevel: "error", onlyCategories: categories.split(",") };
    const { lhr } = await lighthouse(address, options, form === "desktop" ? desktopConfig : undefined);
    const scores = Object.fromEntries(Object.values(lhr.categories).map(({ id, score }) => [id, score]));
    const counted = Object.values(lhr.categories).flatMap(({ id, auditRefs }) =>
      id === "performance" ? [] : auditRefs.filter(({ weight }) => weight).map((ref) => ref.id));
    const failed = counted.map((id) => lhr.audits[id]).filter(({ score }) => score !== null && score < 1);
    const faults = failed.map(({ id, title, details }) => {
      const items = (details?.items ?? []).slice(0, 3);
      return { id, title, where: items.map((item) => item.node?.snippet ?? item.description ?? item.url ?? "") };
    });
    console.log(JSON.stringify({ scores, faults, error: lhr.runtimeError?.message ?? null }));
  }
} finally {
  chrome.kill();
}
