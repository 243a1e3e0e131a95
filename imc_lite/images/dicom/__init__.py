"""DICOM as a viewer shows it. Nothing but pixels leaves this room: elements may name the patient.

- `picture`: `load_dicom`, one frame as RGB
- `file`: is it DICOM, and its elements
- `image_pixel`: the elements that describe pixels, checked
- `frame`: stored values of a frame
- `codestream`: what a JPEG, JPEG-LS or JPEG 2000 stream says of itself
- `rle`: RLE Lossless
- `lookup`: lookup tables
- `grey`, `colour`: stored values to what is seen
- `windows`: the windows a user may ask for
"""
