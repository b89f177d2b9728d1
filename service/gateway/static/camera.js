// A photo from the camera, as a file; null where there is none, or nobody takes one.

import {element} from "./elements.js";

export async function takePhoto() {
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({video: {facingMode: "environment"}});
  } catch (error) {
    alert(`There is no camera to use (${error.message || error}).`);
    return null;
  }
  const video = element("video", {autoplay: true, playsinline: true, muted: true});
  video.srcObject = stream;
  const take = element("button", {type: "button", class: "main", disabled: true}, "Take");
  video.onloadeddata = () => (take.disabled = false);
  const cancel = element("button", {type: "button"}, "Cancel");
  const dialog = element("dialog", {"aria-label": "Camera"}, video, element("div", {class: "row"}, take, cancel));
  document.body.append(dialog);
  dialog.showModal();
  const photo = await new Promise((resolve) => {
    cancel.onclick = () => resolve(null);
    dialog.oncancel = () => resolve(null);
    take.onclick = () => {
      const canvas = element("canvas", {width: video.videoWidth, height: video.videoHeight});
      canvas.getContext("2d").drawImage(video, 0, 0);
      canvas.toBlob((blob) => resolve(new File([blob], "photo.png", {type: "image/png"})), "image/png");
    };
  });
  for (const track of stream.getTracks()) track.stop();
  dialog.remove();
  return photo;
}
